"""One caller's hearing: the audio ring, the windows that wait for voice activity, and the speech edges.

Synchronous and without a clock. The host asks every ear for its next window, decides them all in one batch, and gives
each its probability back; a tick that failed is asked again, since an ear moves on only when it is answered.
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

# One voice activity window: no silence can be known sooner.
WINDOW_MS = VAD_WINDOW * 1000 // STT_RATE

# Arrival times are kept for this many appended messages: 20 s of 20 ms messages.
ARRIVALS = 1000

# Louder than a quiet room on a telephone; only asked while voice activity detection itself is away.
AUDIBLE_DBFS = -45.0


def speech_settings(settings: SpeechSettings, detection: TurnDetection) -> SpeechSettings:
    """The operator's hysteresis as the client's turn detection changes it.

    server_vad brings its own threshold and padding. Its silence is kept exactly, so the soft end comes no later.
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
    """When the newest messages arrived: flat arrays, since a thousand pairs of objects would be 0.1 MB a call."""

    __slots__ = ("_at", "_count", "_ends")

    def __init__(self) -> None:
        self._ends = array("q", bytes(8 * ARRIVALS))
        self._at = array("d", bytes(8 * ARRIVALS))
        self._count = 0

    def note(self, end: int, now: float) -> None:
        """A message arrived now; the stream then ended at sample `end`."""
        slot = self._count % ARRIVALS
        self._ends[slot], self._at[slot] = end, now
        self._count += 1

    def at(self, sample: int) -> float | None:
        """When the stream first reached `sample`, None if it has not, or if that is forgotten."""
        arrived_at = None
        for index in range(self._count - 1, max(-1, self._count - 1 - ARRIVALS), -1):
            # Newest first: what is asked for came a moment ago.
            slot = index % ARRIVALS
            if self._ends[slot] < sample:
                break
            arrived_at = self._at[slot]
        return arrived_at


class AudioInput:
    """`settings` may be exchanged between turns; sample indices count from the session's start at 16 kHz."""

    def __init__(self, settings: SpeechSettings, ring_s: float, suppressor: NoiseSuppressor | None = None) -> None:
        self.settings = settings
        self._suppressor = suppressor
        self._ring = AudioRing(ring_s, STT_RATE)
        self._decided = 0
        self._vad_state = _FRESH
        self._speech = SpeechState()
        self._arrivals = MessageArrivals()

    @property
    def received(self) -> int:
        """Samples received so far."""
        return self._ring.end

    @property
    def processed(self) -> int:
        """Samples whose voice activity is decided."""
        return self._decided

    @property
    def backlog(self) -> bool:
        """Whether at least one whole window waits."""
        return self._ring.end - self._decided >= VAD_WINDOW

    def append(self, pcm: bytes, now: float) -> None:
        """Take 16 kHz PCM; what falls out of the ring before it was decided is skipped, oldest first."""
        self._ring.append(self._suppressor.clean(pcm) if self._suppressor else pcm)
        self._arrivals.note(self._ring.end, now)
        if self._decided < self._ring.start:
            self._decided = self._ring.start
            self._vad_state = _FRESH

    def arrival(self, sample: int) -> float | None:
        """When all audio before `sample` had arrived (monotonic), None if that is forgotten."""
        return self._arrivals.at(sample)

    def backlog_audible(self) -> bool:
        """Whether the audio that waits for its decision is loud enough to be somebody speaking."""
        waiting = self._ring.slice(self._decided, self._ring.end)
        return len(waiting) > 0 and rms_dbfs(waiting) > AUDIBLE_DBFS

    def window(self) -> tuple[bytes, bytes] | None:
        """The next undecided window, 16-bit PCM, and the state before it."""
        if not self.backlog:
            return None
        return self._ring.slice(self._decided, self._decided + VAD_WINDOW), self._vad_state

    def decide(self, probability: float, state: bytes) -> tuple[SpeechEvent, ...]:
        """Answer the window last asked for; returns the speech edges that it made."""
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
        """Pass over all audio received so far without deciding it (turn detection is off)."""
        self._decided = self._ring.end - (self._ring.end - self._decided) % VAD_WINDOW

    @property
    def dip(self) -> int | None:
        """Since when the caller's voice has been low in the middle of an utterance: the sample behind the first low
        window of those that are the newest, None if the newest is not low.
        """
        return self._speech.dip

    @property
    def in_speech(self) -> bool:
        """Whether speech was heard that no turn was made of yet."""
        return self._speech.phase not in (SpeechPhase.SILENCE, SpeechPhase.ONSET)

    def turn_over(self, speech_end: int, end: int) -> None:
        """A turn was made of (or the client dropped) the audio before `end`, whose speech ended at `speech_end`.

        What follows is a new utterance, unless it began already: windows are decided ahead of the session's loop.
        """
        passed = max(0, min(end, self._ring.end) - self._decided)
        self._decided += passed - passed % VAD_WINDOW  # whole windows: the detector's context stays unbroken
        if self._speech.speech_end <= speech_end:
            self._speech = committed(self._speech)

    def release(self) -> None:
        """Give the audio's memory back: an ended session waits for the garbage collector, a megabyte should not."""
        self._ring = AudioRing(VAD_WINDOW / STT_RATE, STT_RATE)

    def pcm(self, start: int, end: int) -> bytes:
        """16 kHz PCM of [start, end), as far as it is still held."""
        return self._ring.slice(start, end)
