"""How soon a reply falls silent when its listener speaks over it, and what of it stays in the history.

Callers hold conversations in which each line but the first interrupts the reply to the one before. Their loudspeaker is
simulated; it is silent from the instant at which the client learns that the server heard speech. The replies are made
by emulated engines that speak a known number of characters a second: so it is known what was heard of their text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from loadtest.callers.scripted_caller import ScriptedCaller, ScriptedLine
from loadtest.callers.scripted_turn import ReceivedReply, ScriptedTurn
from loadtest.results.spread import Spread, spread
from loadtest.scenario.clips import Clip
from rejoinder.core.audio.pcm import SAMPLE_BYTES, WIRE_RATE
from rejoinder.core.reply.playout import CHARACTERS_PER_S

LIMIT_MS = 150.0
"""The bar (DESIGN section 5): from the first frame with the interruption's speech to the last sample of the reply."""

FIRST_S, STEP_S, SPREAD_S = 0.8, 0.37, 1.5
"""Interruptions begin so long after a reply does, and so much later each, over so wide a range: so they meet frames,
windows and segments at every offset.
"""

HEARD_TOLERANCE_S = 0.1
"""A word is over a little before the space behind it, and a client says where it stopped in whole milliseconds."""

SETTINGS: dict[str, Any] = {
    "stt": {"engine": "emulated", "emulation": {"profile": "guide-500-stt", "full_stop": True}},
    "llm": {"engine": "emulated", "emulation": {"profile": "guide-500-llm", "tokens": 120}},
    "tts": {"engine": "emulated", "emulation": {"profile": "guide-500-tts"}},
    "conversation": {"max_reply_tokens": 120},
}
"""Replies of some forty seconds, so that none ends before it is interrupted; voice activity and turn model are real."""


@dataclass(frozen=True, slots=True)
class Interruption:
    """In milliseconds. `stop_ms`: first frame with speech -> silence; `frame_ms`: first sample -> that frame leaves;
    `server_ms`: arrival of the first window that counted as speech -> silence, by the server's clock.

    `heard_s` of the reply was heard; `kept` of its text is in the history, which takes `kept_s` to say.
    """

    clip: str
    stop_ms: float
    frame_ms: float
    server_ms: float | None
    heard_s: float
    kept_s: float
    kept: str
    said: str

    @property
    def true_to_heard(self) -> bool:
        """Whether the history has the reply's beginning, and nothing of it that was not heard."""
        return self.said.startswith(self.kept) and self.kept_s <= self.heard_s + HEARD_TOLERANCE_S


def script(question: Clip, clips: Sequence[Clip], count: int, offset: int) -> list[ScriptedLine]:
    """A question and `count` interruptions; `offset`: how many other callers of the run have begun with."""
    numbers = range(offset, offset + count)
    over = [ScriptedLine(clips[number % len(clips)], FIRST_S + number * STEP_S % SPREAD_S) for number in numbers]
    return [ScriptedLine(question), *over]


def interruptions(dialogue: ScriptedCaller) -> list[Interruption]:
    """Those in which the reply fell silent; a line that did not silence the reply before it is missing."""
    found = []
    for before, behind in pairwise(dialogue.turns):
        if before.stop_s is not None and before.reply is not None:
            found.append(_interruption(before.reply, before.stop_s, behind))
    return found


def _interruption(reply: ReceivedReply, stop_s: float, behind: ScriptedTurn) -> Interruption:
    onset = behind.spoken.start + behind.spoken.clip.speech_start
    captured_at = behind.microphone.captured(onset)
    return Interruption(
        clip=behind.spoken.clip.name,
        stop_ms=round(stop_s * 1000, 1),
        frame_ms=round((behind.speech_begins - captured_at) * 1000, 1),
        server_ms=reply.report.stop_ms if reply.report else None,
        heard_s=round(sum(len(chunk.pcm) for chunk in reply.playback.heard()) / _BYTES_A_SECOND, 3),
        kept_s=round(len(reply.kept) / CHARACTERS_PER_S, 3),
        kept=reply.kept,
        said=reply.transcript.strip(),
    )


_BYTES_A_SECOND = WIRE_RATE * SAMPLE_BYTES


@dataclass(frozen=True, slots=True)
class Stops:
    """All interruptions of a run; `asked`: how many there should have been. `late_ms`: how late the callers' own frames
    left at the 99th percentile, which makes all of it longer.
    """

    asked: int
    found: tuple[Interruption, ...]
    late_ms: float = 0.0

    def spreads(self) -> dict[str, Spread]:
        """By part, of those that are known; the rest is the way there and back and the speech before that window."""
        server = [each.server_ms for each in self.found if each.server_ms is not None]
        rest = [each.stop_ms - each.server_ms for each in self.found if each.server_ms is not None]
        parts = {
            "first frame to silence": [each.stop_ms for each in self.found],
            "first sample to silence": [each.stop_ms + each.frame_ms for each in self.found],
            "of it: in the server, from the first window": server,
            "of it: before that window, and the network": rest,
        }
        return {name: spread(values) for name, values in parts.items() if values}

    @property
    def untrue(self) -> int:
        """Histories with something that was not heard."""
        return sum(not each.true_to_heard for each in self.found)

    @property
    def holds(self) -> bool:
        """Whether every interruption was heard, 95% of them in time, and every history is true."""
        if len(self.found) < self.asked or not self.found:
            return False
        return spread([each.stop_ms for each in self.found]).p95_ms <= LIMIT_MS and not self.untrue
