"""Tests of what is read from an offer, and of the lines that an answer gets."""

from __future__ import annotations

import pytest

from rejoinder.core.errors import CallerError
from rejoinder.core.wire.sdp import MAX_SDP, read_offer, with_addresses, with_opus_parameters

AUDIO = "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=rtpmap:111 opus/48000/2\r\na=fmtp:111 minptime=10;useinbandfec=1\r\n"
OFFER = f"v=0\r\n{AUDIO}m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\n"


def test_an_offer_of_a_browser_is_read() -> None:
    """In-band FEC and the data channel are found."""
    offered = read_offer(OFFER)
    assert (offered.fec, offered.channel) == (True, True)
    assert not read_offer(OFFER.replace("useinbandfec=1", "useinbandfec=0")).fec


@pytest.mark.parametrize(
    ("offer", "word"),
    [
        ("hello", "SDP"),
        ("v=0\r\n", "0 audio"),
        (OFFER + AUDIO, "2 audio"),
        (OFFER + "m=video 9 UDP/TLS/RTP/SAVPF 96\r\n", "video"),
        (OFFER.replace("opus/48000/2", "PCMU/8000"), "Opus"),
        ("v=0" + " " * MAX_SDP, "characters"),
    ],
)
def test_an_offer_that_cannot_be_answered_says_why(offer: str, word: str) -> None:
    """The error names the field `sdp` and what is wrong."""
    with pytest.raises(CallerError, match=word) as caught:
        read_offer(offer)
    assert caught.value.param == "sdp"


def test_the_answer_has_one_line_of_parameters_for_opus() -> None:
    """The library's own line is replaced."""
    answer = with_opus_parameters(OFFER, dtx=True, bitrate=32_000)
    assert [line for line in answer.splitlines() if line.startswith("a=fmtp")] == [
        "a=fmtp:111 minptime=20;stereo=0;useinbandfec=0;usedtx=1;maxaveragebitrate=32000"
    ]


def test_advertised_addresses_replace_those_of_the_machine() -> None:
    """Each port is announced once with each address, and relayed candidates stay."""
    relay = "a=candidate:r 1 udp 99 198.51.100.9 4000 typ relay raddr 10.0.0.1 rport 1"
    answer = f"v=0\r\na=candidate:a 1 udp 2130706431 10.0.0.1 5000 typ host\r\n{relay}\r\n"
    lines = with_addresses(answer, ["203.0.113.5", "2001:db8::5"]).splitlines()
    assert [line.split(" ")[4:6] for line in lines[1:3]] == [["203.0.113.5", "5000"], ["2001:db8::5", "5000"]]
    assert lines[3:] == [relay]
    assert with_addresses(answer, []) == answer
