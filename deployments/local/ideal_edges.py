"""Earliest possible ends of turns of an audio stream. For the density benchmark only, as its reference.

An "edge" is an end of turn. It is computed with a session's audio input, speech detector and endpointing, but verdicts
take no time. So it is the earliest end of turn that the configuration allows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from actors.listening.audio_input import AudioInput, speech_settings
from actors.listening.turn_judge import VERDICT_SAMPLES
from deployments.engines.speech_in.silero import Silero
from rejoinder.core.audio.pcm import SAMPLE_BYTES, STT_RATE, pcm16_to_float
from rejoinder.core.settings.settings import Settings
from rejoinder.core.turns.endpointing import DetectionMode, EndpointRule, TurnDetection, endpoint_silence_s
from rejoinder.core.turns.speech_detector import SoftEnd, SpeechEvent, SpeechResumed, SpeechStarted
from rejoinder.store.end_of_turn_table import load_table

Judge = Callable[[bytes], float]
"""Function that returns the probability that a turn, given as 16 kHz PCM, is complete."""


@dataclass(frozen=True, slots=True)
class IdealEdge:
    """One end of turn. Times are in ms after the arrival of the stream's first frame.

    Attributes:
        work_ms: When transcription of the turn can begin.
        commit_ms: When the turn ends.
    """

    work_ms: float
    commit_ms: float


@dataclass(frozen=True, slots=True)
class _Pending:
    end: SoftEnd
    detected_s: float
    commit_s: float


class EdgeFinder:
    """Finder of the ends of turns in one audio stream."""

    def __init__(self, vad: Silero, judge: Judge, settings: Settings, detection: TurnDetection) -> None:
        """Create a finder.

        Args:
            vad: Voice activity model.
            judge: Function that returns the probability that a turn is complete. Used only with semantic_vad.
            settings: Speech and endpointing settings.
            detection: Mode of turn detection.
        """
        self._vad = vad
        self._judge = judge
        self._settings = settings
        self._detection = detection
        self._rule = EndpointRule(settings.endpointing, load_table(settings.endpointing.table))
        self._input = AudioInput(speech_settings(settings.speech, detection), settings.host.audio_ring_s)
        self._start = 0
        self._pending: _Pending | None = None

    def edges(self, frames: Iterable[bytes], frame_s: float) -> Iterator[IdealEdge]:
        """Yield every end of turn in order.

        Args:
            frames: 16 kHz PCM in frames of equal length.
            frame_s: Duration of a frame in seconds.
        """
        for number, frame in enumerate(frames):
            now = number * frame_s
            self._input.append(frame, now)
            while (window := self._input.window()) is not None:
                pcm, state = window
                states = np.frombuffer(state, np.float32)[np.newaxis]
                probabilities, after = self._vad.step(pcm16_to_float(pcm)[np.newaxis], states)
                for event in self._input.decide(float(probabilities[0]), after.tobytes()):
                    self._take(event, now)
            if self._pending and now >= self._pending.commit_s:
                yield self._commit(self._pending)

    def _take(self, event: SpeechEvent, now: float) -> None:
        match event:
            case SpeechStarted(sample):
                self._start = sample
            case SpeechResumed():
                self._pending = None
            case SoftEnd(speech_end, sample):
                remaining_s = self._wait_s(event) - (sample - speech_end) / STT_RATE
                self._pending = _Pending(event, now, now + max(0.0, remaining_s))

    def _wait_s(self, end: SoftEnd) -> float:
        if self._detection.mode is not DetectionMode.SEMANTIC_VAD:
            return endpoint_silence_s(self._detection, self._rule, None)
        speech = self._input.pcm(self._input.padded(self._start), end.at)[-VERDICT_SAMPLES * SAMPLE_BYTES :]
        return endpoint_silence_s(self._detection, self._rule, self._judge(speech))

    def _commit(self, pending: _Pending) -> IdealEdge:
        self._pending = None
        self._input.end_turn(pending.end.speech_end, self._input.processed)
        return IdealEdge(pending.detected_s * 1000, pending.commit_s * 1000)
