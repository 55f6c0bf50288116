"""Audio of one caller: the ring buffer, the windows that wait for voice activity detection, and the speech edges.

A speech edge is a start or an end of speech. The module is synchronous and has no clock. The host takes the next window
of every audio input, has all windows decided in one batch, and passes each input its speech probability. An input moves
to its next window only when the current one was decided, so a failed batch can be repeated.
"""

from __future__ import annotations

import math
import sys
from array import array
from dataclasses import replace

import numpy as np

from actors.stages.ports import NoiseSuppressor
from rejoinder.core.access.stored_bytes import StoredBytes
from rejoinder.core.audio.pcm import SAMPLE_BYTES, STT_RATE, VAD_WINDOW, AudioRing, rms_dbfs
from rejoinder.core.settings.settings import BackgroundSettings, SpeechSettings
from rejoinder.core.turns.caller_level import CallerLevel, level_dbfs, power_dbfs
from rejoinder.core.turns.endpointing import DetectionMode, TurnDetection
from rejoinder.core.turns.speech_detector import (
    SoftEnd,
    SpeechEvent,
    SpeechPhase,
    SpeechStarted,
    SpeechState,
    committed,
    step,
)

STATE_FLOATS = 320
_FRESH = np.zeros(STATE_FLOATS, np.float32).tobytes()

# Length of one voice activity window, in ms. Silence is measured in whole windows.
WINDOW_MS = VAD_WINDOW * 1000 // STT_RATE

# Number of appended messages whose arrival times are kept: 20 s of 20 ms messages.
ARRIVALS = 1000

# Newest part of an utterance, in seconds, whose level is measured.
LEVEL_S = 8.0

# Level in dBFS above which audio may be speech: louder than a quiet room on a telephone. Used only while voice activity
# detection fails.
AUDIBLE_DBFS = -45.0


def speech_settings(settings: SpeechSettings, detection: TurnDetection) -> SpeechSettings:
    """Return the operator's speech settings, changed by the client's turn detection if its mode is server_vad.

    With server_vad the client sets the speech threshold, the padding before speech and the silence that ends a turn.
    If that silence is shorter than `soft_end_ms`, `soft_end_ms` is shortened to it, but not below one window. The
    distance between threshold and release threshold does not change.
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
    """Arrival times of a caller's newest audio messages.

    They are kept in flat arrays: a thousand pairs of objects would take 0.1 MB per call.
    """

    __slots__ = ("_at", "_count", "_ends")

    def __init__(self) -> None:
        self._ends = array("q", bytes(8 * ARRIVALS))
        self._at = array("d", bytes(8 * ARRIVALS))
        self._count = 0

    def note(self, end: int, now: float) -> None:
        """Record that a message arrived at monotonic time `now` and extended the stream to sample `end`."""
        slot = self._count % ARRIVALS
        self._ends[slot], self._at[slot] = end, now
        self._count += 1

    def at(self, sample: int) -> float | None:
        """Return the monotonic time at which the stream reached `sample`.

        None if the stream has not reached it, or if the time is no longer stored (see ARRIVALS).
        """
        arrived_at = None
        for index in range(self._count - 1, max(-1, self._count - 1 - ARRIVALS), -1):
            # Search from the newest message back, because the wanted sample has usually just arrived.
            slot = index % ARRIVALS
            if self._ends[slot] < sample:
                break
            arrived_at = self._at[slot]
        return arrived_at


class AudioInput:
    """Audio of one caller. Sample indices are at 16 kHz and count from the session's start.

    Attributes:
        settings: Thresholds and durations of speech detection. They may be replaced between any two windows.
    """

    def __init__(
        self,
        settings: SpeechSettings,
        ring_s: float,
        suppressor: NoiseSuppressor | None = None,
        *,
        max_ring_s: float = 0.0,
        background: BackgroundSettings | None = None,
        stored: StoredBytes | None = None,
    ) -> None:
        """Create an empty input.

        Args:
            settings: Thresholds and durations of speech detection.
            ring_s: Seconds of audio to keep.
            suppressor: Removes noise from all audio before it is stored; None for no noise suppression.
            max_ring_s: Seconds of audio to keep at most while it is still needed; at least `ring_s`.
            background: Levels of background speech; None if nothing counts as background.
            stored: Bytes that all clients of the host make it keep. What the ring buffer has above `ring_s` is counted,
                and it does not grow if the host has no room. None: nothing is counted.
        """
        self._stored = stored or StoredBytes(sys.maxsize)
        self._counted = 0
        self.settings = settings
        self._suppressor = suppressor
        self._ring = AudioRing(ring_s, STT_RATE)
        self._usual_samples = self._ring.capacity
        self._most_samples = max(self._usual_samples, round(max_ring_s * STT_RATE))
        self._held: int | None = None
        self._decided = 0
        self._taken = 0
        self._vad_state = _FRESH
        self._speech = SpeechState()
        self._background = background or BackgroundSettings(enabled=False)
        self._level = CallerLevel()
        self._started = 0
        self._arrivals = MessageArrivals()

    @property
    def received(self) -> int:
        """Number of samples received since the session's start."""
        return self._ring.end

    @property
    def processed(self) -> int:
        """Number of samples, from the session's start, whose voice activity is decided."""
        return self._decided

    @property
    def backlog(self) -> bool:
        """True while at least one complete window waits for its decision."""
        return self._ring.end - self._decided >= VAD_WINDOW

    def append(self, pcm: bytes, now: float, *, keep_all: bool = False) -> int:
        """Append 16-bit PCM at 16 kHz that arrived at monotonic time `now`.

        The ring buffer grows, up to `max_ring_s` and as far as the host has room, for audio that is still needed:
        windows without a decision, and the utterance from the sample on that `hold` named.

        Args:
            pcm: The audio.
            now: Monotonic time of its arrival, in seconds.
            keep_all: True if all audio since the last turn is needed, because the client ends the turn.

        Returns:
            Number of samples that were dropped although they are needed, because `max_ring_s` or the host's memory is
            full. The oldest are dropped.
        """
        needed_from = self._needed_from(keep_all=keep_all)
        self._fit(self._ring.end + len(pcm) // SAMPLE_BYTES - needed_from)
        self._ring.append(self._suppressor.clean(pcm) if self._suppressor else pcm)
        self._arrivals.note(self._ring.end, now)
        lost = max(0, self._ring.start - needed_from)
        if self._decided < self._ring.start:
            self._decided = self._ring.start
            self._vad_state = _FRESH
        return lost

    def _needed_from(self, *, keep_all: bool) -> int:
        """Return the oldest sample in the ring buffer that is still needed.

        With `keep_all` all audio since the last turn is needed.
        """
        needed = self._decided if self._held is None else min(self._decided, self._held)
        return max(self._ring.start, min(needed, self._taken) if keep_all else needed)

    def _fit(self, needed: int) -> None:
        """Make the ring buffer fit for `needed` samples, at most `max_ring_s`. Shrink it if it is far too large."""
        if needed > self._ring.capacity < self._most_samples:
            for samples in (max(needed, 2 * self._ring.capacity), needed):
                if self._resize(min(self._most_samples, samples)):
                    return
        elif self._ring.capacity > self._usual_samples and needed <= self._usual_samples // 2:
            self._resize(self._usual_samples)

    def _resize(self, samples: int) -> bool:
        """Make the ring buffer `samples` long and return True. Return False if the host has no room for it."""
        counted = max(0, samples - self._usual_samples) * SAMPLE_BYTES
        if counted > self._counted and not self._stored.take(counted - self._counted):
            return False
        if counted < self._counted:
            self._stored.release(self._counted - counted)
        self._counted = counted
        self._ring.resize(samples)
        return True

    def hold(self, start: int | None) -> None:
        """Keep the audio from sample `start` on, because it will be transcribed; None if nothing will be."""
        self._held = start

    def arrival(self, sample: int) -> float | None:
        """Return the monotonic time when all audio before `sample` had arrived; None if it is no longer known."""
        return self._arrivals.at(sample)

    def backlog_audible(self) -> bool:
        """Return True if the undecided audio is loud enough to be speech."""
        waiting = self._ring.slice(self._decided, self._ring.end)
        return len(waiting) > 0 and rms_dbfs(waiting) > AUDIBLE_DBFS

    def window(self) -> tuple[bytes, bytes] | None:
        """Return the next undecided window (16-bit PCM) and the detector's state before it; None if no window waits."""
        if not self.backlog:
            return None
        return self._ring.slice(self._decided, self._decided + VAD_WINDOW), self._vad_state

    def decide(self, probability: float, state: bytes) -> tuple[SpeechEvent, ...]:
        """Apply the detector's decision to the window that `window` returned last.

        Args:
            probability: Probability of speech, in [0, 1].
            state: The detector's state after the window (320 float32 values).

        Returns:
            The starts and ends of speech that follow from this decision; often none.
        """
        self._vad_state = state
        self._decided += VAD_WINDOW
        power: float | None = None
        begins = not self.in_speech and probability >= self.settings.threshold
        if self._speech.listens or begins:
            samples = np.frombuffer(self._ring.slice(self._decided - VAD_WINDOW, self._decided), "<i2")
            power = float(np.square(samples, dtype=np.float32).mean())
        if begins and power is not None and power_dbfs(power) < self._level.onset_dbfs(self._decided, self._background):
            self._level, probability = self._level.refused(), 0.0
        self._speech, events = step(
            self._speech, settings=self.settings, probability=probability, window_end=self._decided, power=power
        )
        return tuple(self._marked(event) for event in events)

    def _marked(self, event: SpeechEvent) -> SpeechEvent:
        """Return the event, with `faint` set if it is a start or end of speech that may be background speech."""
        match event:
            case SpeechStarted(at):
                self._started = at
                return replace(event, faint=self._level.doubtful(self.level(at, self._decided), self._background))
            case SoftEnd(speech_end):
                level = self.level(self._started, speech_end)
                return replace(event, faint=self._level.doubtful(level, self._background))
        return event

    def level(self, start: int, end: int) -> float:
        """Return the level of samples [start, end) in dBFS (`rejoinder.core.turns.caller_level`).

        Only the last LEVEL_S seconds are used.
        """
        first = max(start, end - round(LEVEL_S * STT_RATE))
        return level_dbfs(np.frombuffer(self._ring.slice(first, end), "<i2"))

    def utterance_level(self, start: int) -> float:
        """Return the level of the utterance since sample `start`, up to the end of its newest speech, in dBFS."""
        return self.level(start, max(self._speech.speech_end, start + VAD_WINDOW))

    def is_background(self, level: float, *, addressed: bool) -> bool:
        """Return True if an utterance with this level in dBFS is background speech.

        Args:
            level: Its level.
            addressed: True if its words address the agent.
        """
        return self._level.is_background(level, self._background, addressed=addressed)

    @property
    def caller_dbfs(self) -> float | None:
        """Level of the caller's speech in dBFS; None before the first turn."""
        return self._level.caller_dbfs

    def caller_heard(self, level: float) -> None:
        """Update the estimate of the caller's level; `level` is the level of one of the caller's turns, in dBFS."""
        if math.isfinite(level):
            self._level = self._level.heard(level)

    def background_dismissed(self, level: float, end: int) -> None:
        """Update the estimate of the background's level: background speech of `level` dBFS ended at sample `end`."""
        if math.isfinite(level):
            self._level = self._level.dismissed(level, end)

    def skip_window(self) -> None:
        """Skip the window that `window` returned last, because it cannot be decided. The detector's state is reset."""
        self._decided += VAD_WINDOW
        self._vad_state = _FRESH

    def skip(self) -> None:
        """Skip all complete windows received so far without deciding them, because turn detection is off."""
        self._decided = self._ring.end - (self._ring.end - self._decided) % VAD_WINDOW

    @property
    def dip(self) -> int | None:
        """Sample at which the first window of the current dip ends; None if there is no dip now.

        A dip is a fall of the voice by 20 dB during an utterance. It is current while it includes the newest window.
        """
        return self._speech.dip

    @property
    def in_speech(self) -> bool:
        """True during an utterance that has not become a turn yet."""
        return self._speech.phase not in (SpeechPhase.SILENCE, SpeechPhase.ONSET)

    def end_turn(self, speech_end: int, end: int, heard: int | None = None) -> None:
        """End the utterance, because the audio before sample `end` became a turn or was dropped.

        Later speech begins a new utterance. If the detector has already found speech after `speech_end`, that
        utterance continues: windows may be decided before the session handles the end.

        Args:
            speech_end: The sample at which the utterance's speech ended.
            end: The sample at which the turn ended.
            heard: The sample up to which the audio was transcribed or dropped; by default `end`. The next utterance's
                padding may begin there, because the silence between `heard` and `end` may contain its soft onset.
        """
        self._taken = max(self._taken, min(end if heard is None else heard, self._ring.end))
        passed = max(0, min(end, self._ring.end) - self._decided)
        # Skip only whole windows, because the next window must start where a window ends.
        self._decided += passed - passed % VAD_WINDOW
        if self._speech.speech_end <= speech_end:
            self._speech = committed(self._speech)

    def padded(self, start: int) -> int:
        """Return the first sample of an utterance whose speech begins at sample `start`: `prefix_padding_ms` earlier.

        The result is never before the end of the audio that was transcribed with the last turn or dropped.
        """
        return max(self._taken, start - round(self.settings.prefix_padding_ms * STT_RATE / 1000))

    def release(self) -> None:
        """Free the ring buffer (about 1 MB): an ended session stays in memory until it is garbage-collected."""
        self._stored.release(self._counted)
        self._counted = 0
        self._ring = AudioRing(VAD_WINDOW / STT_RATE, STT_RATE)

    def pcm(self, start: int, end: int) -> bytes:
        """Return samples [start, end) as 16-bit PCM at 16 kHz, as far as the ring buffer still has them."""
        return self._ring.slice(start, end)
