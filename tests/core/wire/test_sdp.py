"""Tests of the session descriptions of calls over WebRTC."""

from __future__ import annotations

import pytest

from rejoinder.core.errors import CallerError
from rejoinder.core.wire.sdp import MAX_SDP, read_offer, with_addresses, with_opus_parameters

OFFER = "\r\n".join(
    [
        "v=0",
        "m=audio 9 UDP/TLS/RTP/SAVPF 111 0",
        "a=rtpmap:111 opus/48000/2",
        "a=fmtp:111 minptime=10;useinbandfec=1",
        "m=application 9 UDP/DTLS/SCTP webrtc-datachannel",
        "",
    ]
)
ANSWER = "\r\n".join(
    [
        "v=0",
        "a=rtpmap:111 opus/48000/2",
        "a=candidate:1 1 udp 2130706431 10.0.0.5 40000 typ host",
        "a=candidate:2 1 udp 2130706431 fd00::5 40000 typ host",
        "a=candidate:3 1 udp 1694498815 198.51.100.7 40000 typ srflx raddr 10.0.0.5 rport 40000",
        "",
    ]
)


def test_an_offer_says_whether_the_client_uses_fec_and_a_channel() -> None:
    """Both are read from the lines of the offer."""
    offered = read_offer(OFFER)
    assert (offered.fec, offered.channel) == (True, True)
    plain = read_offer(OFFER.replace("useinbandfec=1", "x=1").replace("m=application", "b=application"))
    assert (plain.fec, plain.channel) == (False, False)


@pytest.mark.parametrize(
    ("sdp", "word"),
    [
        ("hello", "SDP"),
        ("v=0\r\n", "0 audio tracks"),
        (OFFER + OFFER[5:], "2 audio tracks"),
        (OFFER + "m=video 9 UDP/TLS/RTP/SAVPF 96\r\n", "video"),
        (OFFER.replace("opus", "G722"), "Opus"),
        ("v=0" + "a" * MAX_SDP, "characters"),
    ],
)
def test_what_is_no_offer_of_a_call_is_refused(sdp: str, word: str) -> None:
    """The error names what is wrong, and the field sdp."""
    with pytest.raises(CallerError, match=word) as refused:
        read_offer(sdp)
    assert refused.value.param == "sdp"


def test_an_answer_asks_for_mono_and_dtx() -> None:
    """The parameters follow the codec's line, and replace those that were there."""
    answer = with_opus_parameters(OFFER, dtx=True, bitrate=24_000)
    (line,) = [line for line in answer.splitlines() if line.startswith("a=fmtp")]
    assert line.startswith("a=fmtp:111 ")
    assert {"stereo=0", "usedtx=1", "useinbandfec=0", "maxaveragebitrate=24000"} < set(line.split(" ")[1].split(";"))


def test_advertised_addresses_replace_those_of_the_machine() -> None:
    """Each port is announced once with the public address. What a STUN server has seen stays."""
    lines = with_addresses(ANSWER, ["203.0.113.5"]).splitlines()
    candidates = [line.split(" ")[4] for line in lines if line.startswith("a=candidate")]
    assert candidates == ["203.0.113.5", "198.51.100.7"]
    assert with_addresses(ANSWER, []) == ANSWER
