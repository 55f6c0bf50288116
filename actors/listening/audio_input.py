"""Audio of one caller: the ring buffer, the windows that wait for voice activity detection, and the speech edges.

Synchronous and without a clock. The host asks every input for its next window, decides them all in one batch, and gives
each input its probability back. An input moves on only when its window was decided, so a failed tick can be repeated.
"""

from __future__ import annotations

from array import array

import numpy as np

from actors.stages.ports import NoiseSuppressor
from rejoinder.core.audio.pcm import STT_RATE, VAD_WINDOW, AudioRing, rms_dbfs
from rejoinder.core.settings.settings import SpeechSettings
from rejoinder.core.turns.endpointing import DetectionMode, TurnDetection
from rejoinder.core.turns.speech_detector import SpeechEvent, SpeechPhase, SpeechState, committed, step

STATE_FLOATS = 320
_FRESH = np.zeros(STATE_FLOATS, np.float32).tobytes()

# One voice activity window, the resolution of every silence.
WINDOW_MS = VAD_WINDOW * 1000 // STT_RATE

# Number of appended messages whose arrival times are kept: 20 s of 20 ms messages.
ARRIVALS = 1000

# Louder than a quiet room on a telephone. Used only while voice activity detection itself fails.
AUDIBLE_DBFS = -45.0


def speech_settings(settings: SpeechSettings, detection: TurnDetection) -> SpeechSettings:
    """Return the operator's speech settings as the client's turn detection changes them.

    server_vad brings its own threshold and padding. Its silence is kept exactly, so the tentative end of speech
    (`soft_end_ms`) comes no later than that. The hysteresis between threshold and release threshold stays.
    """
    if detection.mode is not DetectionMode.SERVER_VAD:
        return settings
    hysteresis = settings.threshold - settings.release_threshold
    return settings.model_copy(
        update={
            "threshold": detection.threshold,
            "release_threshold": max(0.0, detection.threshold - hysteresis),
            "prefix_padding_ms": detection.prefix_padding_ms,
            "soft_end_ms": min(settings.soft_end_ms, max(detection.silence_duration_ms, WINDOW_MS)),
        }
    )


class MessageArrivals:
    """Arrival times of the newest messages, in flat arrays: a thousand pairs of objects would cost 0.1 MB a call."""

    __slots__ = ("_at", "_count", "_ends")

    def __init__(self) -> None:
        self._ends = array("q", bytes(8 * ARRIVALS))
        self._at = array("d", bytes(8 * ARRIVALS))
        self._count = 0

    def note(self, end: int, now: float) -> None:
        """Record that a message arrived at monotonic time `now` and that the stream then ended at sample `end`."""
        slot = self._count % ARRIVALS
        self._ends[slot], self._at[slot] = end, now
        self._count += 1

    def at(self, sample: int) -> float | None:
        """Return when the stream first reached `sample`; None if it has not, or if that is too long ago."""
        arrived_at = None
        for index in range(self._count - 1, max(-1, self._count - 1 - ARRIVALS), -1):
            # Newest first, because the sample asked for arrived a moment ago.
            slot = index % ARRIVALS
            if self._ends[slot] < sample:
                break
            arrived_at = self._at[slot]
        return arrived_at


class AudioInput:
    """Audio of one caller. Sample indices count from the session's start at 16 kHz.

    Attributes:
        settings: Thresholds and durations of speech detection. They may change at any window.
    """

    def __init__(self, settings: SpeechSettings, ring_s: float, suppressor: NoiseSuppressor | None = None) -> None:
        """Create an empty input.

        Args:
            settings: See the class.
            ring_s: Seconds of audio to hold.
            suppressor: Cleans all audio before it is held; None without noise suppression.
        """
        self.settings = settings
        self._suppressor = suppressor
        self._ring = AudioRing(ring_s, STT_RATE)
        self._decided = 0
        self._vad_state = _FRESH
        self._speech = SpeechState()
        self._arrivals = MessageArrivals()

    @property
    def received(self) -> int:
        """Number of samples received."""
        return self._ring.end

    @property
    def processed(self) -> int:
        """Number of samples whose voice activity is decided."""
        return self._decided

    @property
    def backlog(self) -> bool:
        """True while at least one whole window waits for its decision."""
        return self._ring.end - self._decided >= VAD_WINDOW

    def append(self, pcm: bytes, now: float) -> None:
        """Append 16 kHz PCM that arrived at monotonic time `now`.

        Audio that leaves the ring before it was decided is skipped, oldest first.
        """
        self._ring.append(self._suppressor.clean(pcm) if self._suppressor else pcm)
        self._arrivals.note(self._ring.end, now)
        if self._decided < self._ring.start:
            self._decided = self._ring.start
            self._vad_state = _FRESH

    def arrival(self, sample: int) -> float | None:
        """Return the monotonic time when all audio before `sample` had arrived; None if it is no longer known."""
        return self._arrivals.at(sample)

    def backlog_audible(self) -> bool:
        """Return True if the undecided audio is loud enough to be speech."""
        waiting = self._ring.slice(self._decided, self._ring.end)
        return len(waiting) > 0 and rms_dbfs(waiting) > AUDIBLE_DBFS

    def window(self) -> tuple[bytes, bytes] | None:
        """Return the next undecided window as 16-bit PCM and the detector's state before it; None if there is none."""
        if not self.backlog:
            return None
        return self._ring.slice(self._decided, self._decided + VAD_WINDOW), self._vad_state

    def decide(self, probability: float, state: bytes) -> tuple[SpeechEvent, ...]:
        """Take the decision on the window that `window` returned last.

        Args:
            probability: Probability of speech, in [0, 1].
            state: The detector's state after the window (320 float32 values).

        Returns:
            The speech edges that the window made.
        """
        self._vad_state = state
        self._decided += VAD_WINDOW
        power: float | None = None
        if self._speech.listens:
            samples = np.frombuffer(self._ring.slice(self._decided - VAD_WINDOW, self._decided), "<i2")
            power = float(np.square(samples, dtype=np.float32).mean())
        self._speech, events = step(
            self._speech, settings=self.settings, probability=probability, window_end=self._decided, power=power
        )
        return events

    def skip(self) -> None:
        """Pass over all audio received so far without deciding it, because turn detection is off."""
        self._decided = self._ring.end - (self._ring.end - self._decided) % VAD_WINDOW

    @property
    def dip(self) -> int | None:
        """Sample where the first window of the current dip ends; None while there is no dip.

        A dip is a stretch of low energy in the middle of an utterance that reaches to the newest window.
        """
        return self._speech.dip

    @property
    def in_speech(self) -> bool:
        """True while an utterance is under way that is not yet a turn."""
        return self._speech.phase not in (SpeechPhase.SILENCE, SpeechPhase.ONSET)

    def end_turn(self, speech_end: int, end: int) -> None:
        """End the utterance: the audio before sample `end` became a turn, or was dropped.

        What follows is a new utterance, unless that has already begun: windows are decided ahead of the session's loop.

        Args:
            speech_end: The sample where the utterance's speech ended.
            end: The sample where the turn ended.
        """
        passed = max(0, min(end, self._ring.end) - self._decided)
        self._decided += passed - passed % VAD_WINDOW  # whole windows keep the detector's context unbroken
        if self._speech.speech_end <= speech_end:
            self._speech = committed(self._speech)

    def release(self) -> None:
        """Free the ring buffer (about 1 MB), because an ended session waits for the garbage collector."""
        self._ring = AudioRing(VAD_WINDOW / STT_RATE, STT_RATE)

    def pcm(self, start: int, end: int) -> bytes:
        """Return 16 kHz PCM of samples [start, end), as far as it is still held."""
        return self._ring.slice(start, end)
