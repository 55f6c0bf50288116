"""Where a stream's turns end by our own rules, as fast as it goes: what a live conversation is held against.

The same ear, hysteresis and endpointing map as a session's, and the same models, without waiting for anything: a
verdict is there at once. So an edge is the earliest that the configuration allows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from actors.listening.audio_input import AudioInput, speech_settings
from actors.listening.end_of_turn import VERDICT_SAMPLES
from deployments.engines.speech_in.silero import Silero
from rejoinder.core.audio.pcm import SAMPLE_BYTES, STT_RATE, pcm16_to_float
from rejoinder.core.settings.settings import Settings
from rejoinder.core.turns.endpointing import DetectionMode, TurnDetection, wait_s
from rejoinder.core.turns.speech_detector import SoftEnd, SpeechEvent, SpeechResumed, SpeechStarted

Judge = Callable[[bytes], float]


@dataclass(frozen=True, slots=True)
class IdealEdge:
    """In ms after the first frame was due: when transcription of the turn can begin, and when the turn is taken."""

    work_ms: float
    commit_ms: float


@dataclass(frozen=True, slots=True)
class _Pending:
    end: SoftEnd
    known_s: float
    commit_s: float


class EdgeFinder:
    """One stream of frames of `frame_s`; `judge` is the turn detector, asked only under semantic_vad."""

    def __init__(self, vad: Silero, judge: Judge, settings: Settings, detection: TurnDetection) -> None:
        self._vad = vad
        self._judge = judge
        self._settings = settings
        self._detection = detection
        self._ear = AudioInput(speech_settings(settings.speech, detection), settings.host.audio_ring_s)
        self._start = 0
        self._pending: _Pending | None = None

    def edges(self, frames: Iterable[bytes], frame_s: float) -> Iterator[IdealEdge]:
        """Every turn's end, in order."""
        for number, frame in enumerate(frames):
            now = number * frame_s
            self._ear.append(frame, now)
            while (window := self._ear.window()) is not None:
                pcm, state = window
                states = np.frombuffer(state, np.float32)[np.newaxis]
                probabilities, after = self._vad.step(pcm16_to_float(pcm)[np.newaxis], states)
                for event in self._ear.decide(float(probabilities[0]), after.tobytes()):
                    self._take(event, now)
            if self._pending and now >= self._pending.commit_s:
                yield self._commit(self._pending)

    def _take(self, event: SpeechEvent, now: float) -> None:
        match event:
            case SpeechStarted(at):
                self._start = at
            case SpeechResumed():
                self._pending = None
            case SoftEnd(speech_end, at):
                left = self._wait_s(event) - (at - speech_end) / STT_RATE
                self._pending = _Pending(event, now, now + max(0.0, left))

    def _wait_s(self, end: SoftEnd) -> float:
        if self._detection.mode is not DetectionMode.SEMANTIC_VAD:
            return wait_s(self._detection, self._settings.endpointing, None)
        padding = round(self._ear.settings.prefix_padding_ms * STT_RATE / 1000)
        heard = self._ear.pcm(self._start - padding, end.at)[-VERDICT_SAMPLES * SAMPLE_BYTES :]
        return wait_s(self._detection, self._settings.endpointing, self._judge(heard))

    def _commit(self, pending: _Pending) -> IdealEdge:
        self._pending = None
        self._ear.turn_over(pending.end.speech_end, self._ear.processed)
        return IdealEdge(pending.known_s * 1000, pending.commit_s * 1000)
