"""Barge-in bench: how fast a reply stops when the caller speaks over it, and what stays in the conversation history.

In each conversation, every line after the first interrupts the reply to the line before. The caller's loudspeaker is
simulated. It stops when the client receives `input_audio_buffer.speech_started`. The replies come from emulated engines
that speak a fixed number of characters per second, so the played part of a reply's text is known.
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
"""Limit of the 95th percentile of the time from the first frame with the caller's speech to the reply's last played
sample, in milliseconds."""

FIRST_S, STEP_S, SPREAD_S = 0.8, 0.37, 1.5
"""Interruption number n begins FIRST_S + (n * STEP_S modulo SPREAD_S) seconds after the start of a reply. The
interruptions thus hit frames, windows and segments at every offset."""

HEARD_TOLERANCE_S = 0.1
"""Tolerance in seconds by which the kept text may exceed the played text. A word ends a little before its space, and
clients report whole milliseconds."""

SETTINGS: dict[str, Any] = {
    "admission": {"enabled": False},  # all callers must be in at once
    "stt": {"engine": "emulated", "emulation": {"profile": "guide-500-stt", "full_stop": True}},
    "llm": {"engine": "emulated", "emulation": {"profile": "guide-500-llm", "tokens": 120}},
    "tts": {"engine": "emulated", "emulation": {"profile": "guide-500-tts"}},
    "conversation": {"max_reply_tokens": 120},
}
"""Settings of the measured server. Replies last about 40 s, so that none ends before it is interrupted. Voice activity
detection and the turn detector are real models."""


@dataclass(frozen=True, slots=True)
class Interruption:
    """One measured interruption.

    Attributes:
        clip: The clip that interrupts.
        stop_ms: Milliseconds from sending the first frame with speech to the reply's last played sample.
        frame_ms: Milliseconds from the first sample of speech to sending the frame that contains it.
        server_ms: Milliseconds from the arrival of the first voice activity window with speech to the end of the reply,
            measured by the server. None if the server did not report it.
        heard_s: Seconds of the reply that were played.
        kept_s: Seconds that the emulated voice needs to speak the text `kept`.
        kept: Text of the reply in the conversation history.
        said: Whole text of the reply, as the server sent it.
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
        """True if the conversation history contains the beginning of the reply and no text that was not played."""
        return self.said.startswith(self.kept) and self.kept_s <= self.heard_s + HEARD_TOLERANCE_S


def script(question: Clip, clips: Sequence[Clip], count: int, offset: int) -> list[ScriptedLine]:
    """Return the lines of one caller: a question and `count` interruptions.

    Args:
        question: First line.
        clips: Clips that interrupt. They are used in order and then repeated.
        count: Number of interruptions.
        offset: Number of interruptions in the scripts of all earlier callers. It continues their sequence of clips and
            times, so that callers do not interrupt at the same times.
    """
    numbers = range(offset, offset + count)
    over = [ScriptedLine(clips[number % len(clips)], FIRST_S + number * STEP_S % SPREAD_S) for number in numbers]
    return [ScriptedLine(question), *over]


def interruptions(dialogue: ScriptedCaller) -> list[Interruption]:
    """Return the interruptions of a finished conversation, in order.

    Lines that did not stop the reply to the previous line are left out.
    """
    stopped = []
    for turn, interrupting in pairwise(dialogue.turns):
        if turn.stop_s is not None and turn.reply is not None:
            stopped.append(_interruption(turn.reply, turn.stop_s, interrupting))
    return stopped


def _interruption(reply: ReceivedReply, stop_s: float, interrupting: ScriptedTurn) -> Interruption:
    onset = interrupting.spoken.start + interrupting.spoken.clip.speech_start
    captured_at = interrupting.microphone.captured(onset)
    return Interruption(
        clip=interrupting.spoken.clip.name,
        stop_ms=round(stop_s * 1000, 1),
        frame_ms=round((interrupting.speech_begins - captured_at) * 1000, 1),
        server_ms=reply.report.stop_ms if reply.report else None,
        heard_s=round(sum(len(chunk.pcm) for chunk in reply.playback.heard()) / _BYTES_PER_SECOND, 3),
        kept_s=round(len(reply.kept) / CHARACTERS_PER_S, 3),
        kept=reply.kept,
        said=reply.transcript.strip(),
    )


_BYTES_PER_SECOND = WIRE_RATE * SAMPLE_BYTES


@dataclass(frozen=True, slots=True)
class Stops:
    """Result of a run of the barge-in bench.

    Attributes:
        asked: Number of interruptions in the scripts.
        found: The interruptions that stopped a reply.
        late_ms: 99th percentile of the delay with which the callers sent their frames, in milliseconds. Late frames
            make measured times longer.
    """

    asked: int
    found: tuple[Interruption, ...]
    late_ms: float = 0.0

    def spreads(self) -> dict[str, Spread]:
        """Return statistics of how long the interrupted replies took to stop, in milliseconds, by name.

        - `first frame to silence`: from sending the first frame with speech to the reply's last played sample.
        - `first sample to silence`: from the first sample of speech to the reply's last played sample.
        - `of it: in the server, ...`: the server's part of the first time, from the first voice activity window with
          speech.
        - `of it: before that window, ...`: the rest of the first time, in the network and before that window.

        A time that was never measured is left out.
        """
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
        """Number of interruptions after which the conversation history contains text that was not played."""
        return sum(not each.true_to_heard for each in self.found)

    @property
    def holds(self) -> bool:
        """True if every interruption stopped its reply, 95% of them within `LIMIT_MS`, and every history is correct.

        The time runs from the interruption's first frame with speech to the reply's last played sample. A history is
        correct if it contains no text that was not played.
        """
        if len(self.found) < self.asked or not self.found:
            return False
        return spread([each.stop_ms for each in self.found]).p95_ms <= LIMIT_MS and not self.untrue
