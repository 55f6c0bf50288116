"""Session descriptions (SDP) of calls over WebRTC: what an offer must contain, and the lines of an answer to change.

A WebRTC library parses and writes the descriptions. Two things are beyond it: the parameters of Opus (RFC 7587), and
addresses that only the operator knows.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from rejoinder.core.wire.fields import refuse

MAX_SDP = 65_536
"""Maximum characters of an offer. Browsers send about 2,000 for one audio track and a data channel."""
_OPUS = re.compile(r"^a=rtpmap:(\d+) opus/48000(?:/2)?\s*$", re.IGNORECASE)
_CANDIDATE = re.compile(r"^(a=candidate:\S+ \d+ udp \d+) (\S+) (\d+ typ host.*)$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class OfferedCall:
    """What an offer says about a call.

    Attributes:
        fec: True if the client uses the copies of lost packets (in-band FEC).
        channel: True if it has a data channel for events.
    """

    fec: bool
    channel: bool


def read_offer(sdp: str) -> OfferedCall:
    """Return what an offer says.

    Raises:
        CallerError: It does not offer audio with Opus, or is too long.
    """
    if len(sdp) > MAX_SDP:
        raise refuse(f"The offer has more than {MAX_SDP} characters.", "sdp", remedy="Offer one audio track.")
    if not sdp.startswith("v=0"):
        raise refuse("The body is not a session description (SDP).", "sdp", remedy="Send the browser's offer.")
    lines = sdp.splitlines()
    kinds = [line[2:].split(" ")[0] for line in lines if line.startswith("m=")]
    if kinds.count("audio") != 1:
        raise refuse(f"The offer has {kinds.count('audio')} audio tracks.", "sdp", remedy="Offer exactly one.")
    if "video" in kinds:
        raise refuse("The offer has video, which is not supported.", "sdp", remedy="Offer audio only.")
    types = [found[1] for line in lines if (found := _OPUS.match(line))]
    if not types:
        raise refuse("The offer lacks Opus.", "sdp", remedy="Offer the codec opus/48000/2.")
    parameters = [line.partition(" ")[2] for line in lines if line.startswith(f"a=fmtp:{types[0]} ")]
    return OfferedCall(fec=any("useinbandfec=1" in text for text in parameters), channel="application" in kinds)


def with_opus_parameters(answer: str, *, dtx: bool, bitrate: int) -> str:
    """Return an answer that tells the client how to encode speech for the server, with Opus.

    In-band FEC is not requested, because the server's decoder does not use it.

    Args:
        answer: The answer that a library has made.
        dtx: True to ask the client to send nothing while its user is silent.
        bitrate: Average bits per second that the client should send.
    """
    parameters = f"minptime=20;stereo=0;useinbandfec=0;usedtx={int(dtx)};maxaveragebitrate={bitrate}"
    lines: list[str] = []
    types = {found[1] for line in answer.splitlines() if (found := _OPUS.match(line))}
    for line in answer.splitlines():
        if any(line.startswith(f"a=fmtp:{number} ") for number in types):
            continue
        lines.append(line)
        if found := _OPUS.match(line):
            lines += [f"a=fmtp:{found[1]} {parameters}"]
    return "\r\n".join(lines) + "\r\n"


def with_addresses(answer: str, addresses: Sequence[str]) -> str:
    """Return an answer whose host candidates have these addresses instead of the machine's own; none to change nothing.

    Each port is announced with every address. Candidates of the same port appear once.
    """
    if not addresses:
        return answer
    lines: list[str] = []
    for line in answer.splitlines():
        found = _CANDIDATE.match(line)
        if not found:
            lines.append(line)
            continue
        for number, address in enumerate(addresses):
            # The foundation is the first word. It differs between addresses (RFC 8445, section 5.1.1.3).
            head = found[1].replace("a=candidate:", f"a=candidate:{number}", 1)
            candidate = f"{head} {address} {found[3]}"
            if not any(candidate.split(" ")[4:] == known.split(" ")[4:] for known in lines):
                lines.append(candidate)
    return "\r\n".join(lines) + "\r\n"
