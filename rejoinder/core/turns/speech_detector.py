"""Speech detector: finds where speech starts, ends and resumes, from the speech probability of each 32 ms window.

Two thresholds keep a window of medium probability from toggling the result. Outside speech, a window must reach
`threshold` to count as speech. Inside speech, it must only reach `release_threshold`. Two minimum durations filter
short events: a click does not start speech (`min_speech_ms`), and a stop consonant does not end it (`soft_end_ms`).
In the diagram, a loud window counts as speech, and a quiet window does not.

              loud              min_speech_ms            quiet               soft_end_ms
    SILENCE ---------> ONSET ----------------> SPEECH ----------> TRAILING --------------> ENDED
       ^                 |     SpeechStarted      ^ ^               |            SoftEnd    |  ^
       |      quiet      |                        | |     loud      |                  loud |  | quiet
       +-----------------+                        | +---------------+                       v  |
                                                  +----------------------------------- RESUMING
                                                             SpeechResumed

ENDED is tentative: the session has started to prepare a reply, but the turn is not committed. Either speech resumes
(RESUMING, then SpeechResumed), or the turn is committed and `committed` returns to SILENCE. Resuming takes fewer
windows than starting, because the caller has just been speaking, and because words that are cut off cost more than a
late reply.

The probability of the VAD model falls slowly. It still indicates speech two or three windows after the end of a word,
although the level of the sound has dropped by then. A window that is HUSH_DB quieter than the loudest one of the
utterance must therefore reach `drop_30db_threshold`. A window that is GONE_DB quieter must reach `drop_40db_threshold`.
In background noise no window is this quiet, so only the usual thresholds apply.

Silence is counted from `speech_end`, the end of the last window that counted as speech. A sound too short to be speech
does not move it. The detector counts samples and not time, so a recording gives the same result as a live call.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from rejoinder.core.audio.pcm import STT_RATE, VAD_WINDOW
from rejoinder.core.settings.settings import SpeechSettings

RESUME_WINDOWS = 2
"""Number of windows of speech that resume an utterance (64 ms). Hugging Face speech-to-speech requires half as much
speech to resume as to start (192 ms and 384 ms). Here a start takes three windows by default, so a resumption takes
two."""


HUSH_DB = 30.0
"""Drop of level, in dB, from which a window must reach `drop_30db_threshold`. Speech within an utterance rarely spans
more, except at the ends of words. On 83 clips, nearly all of human speech, this added 5% soft ends. It brought the last
soft end one window (32 ms) forward in two of four spoken questions."""

GONE_DB = 40.0
"""Drop of level, in dB, from which a window must reach `drop_40db_threshold`. No speech sound is this quiet next to a
vowel, so the probability there comes from the model's memory of earlier windows. It stays near 1 within words, even
during a stop consonant, so a threshold is used instead of silence at once. On 148 clips of human speech this added 17%
soft ends and brought 44% of the last ones forward by one window. On six synthetic clips it brought five of six forward.
"""

DIP_DB = 20.0
"""Drop of level, in dB, that counts as a dip: a stop consonant, the end of a word, or the end of the utterance. An
interim transcript is worth taking at a dip. On 72 clips of human speech with 148 soft ends, a dip came 96 ms before the
soft end (median). There were 1.6 dips per second of speech."""

_DIPPED, _HUSHED, _GONE = 10 ** (-DIP_DB / 10), 10 ** (-HUSH_DB / 10), 10 ** (-GONE_DB / 10)

LEVEL_DECAY = 10 ** (-0.2 / 10)
"""Decay of the reference level: 0.2 dB a window, 6 dB a second. One loud word does not set the level for long."""

REMOTE_DB = 10.0
"""Sound this much quieter than the caller's loudest window may be the background."""
REMOTE_MS = 2000.0
"""Milliseconds of such sound that end the speech. Silence is counted from their beginning."""
PEAK_DECAY = 10 ** (-0.03 / 10)
"""Decay of the peak: 0.03 dB a window, 1 dB a second."""
_REMOTE = 10 ** (-REMOTE_DB / 10)


class SpeechPhase(Enum):
    """Phase of the speech detector.

    SILENCE: no speech. ONSET: speech too short to be reported. SPEECH: reported speech. TRAILING: silence too short to
    be reported. ENDED: a tentative end of speech was reported. RESUMING: new speech after the tentative end, too short
    to be reported.
    """

    SILENCE = "silence"
    ONSET = "onset"
    SPEECH = "speech"
    TRAILING = "trailing"
    ENDED = "ended"
    RESUMING = "resuming"


@dataclass(frozen=True, slots=True)
class SpeechState:
    """State of the detector for one call.

    Attributes:
        phase: Phase of the detector.
        run_start: First sample of the newest uninterrupted run of speech windows.
        speech_end: Sample after the last window that counted as speech.
        level: Power of the loudest window of the utterance, multiplied by LEVEL_DECAY for each later speech window.
        dip: Sample after the first window of the current dip (a fall of the level by DIP_DB). None if there is no dip
            now.
        peak: Power of the loudest window of the utterance, multiplied by PEAK_DECAY for each later window.
        near: Sample after the last window that was less than REMOTE_DB below `peak`.
        over_background: True if REMOTE_MS of quieter sound have ended the speech. Only sound near the peak resumes it.
    """

    phase: SpeechPhase = SpeechPhase.SILENCE
    run_start: int = 0
    speech_end: int = 0
    level: float = 0.0
    dip: int | None = None
    peak: float = 0.0
    near: int = 0
    over_background: bool = False

    @property
    def listens(self) -> bool:
        """True if the next call of `step` uses the window's power, which is the case in all phases but SILENCE."""
        return self.phase is not SpeechPhase.SILENCE


@dataclass(frozen=True, slots=True)
class SpeechStarted:
    """Speech has started.

    Attributes:
        at: Its first sample.
        faint: True if it is so quiet that it may be background speech (`rejoinder.core.turns.caller_level`).
    """

    at: int
    faint: bool = False


@dataclass(frozen=True, slots=True)
class SoftEnd:
    """Tentative end of speech.

    Attributes:
        speech_end: Sample at which speech ended.
        at: Sample at which the detector decided so.
        faint: True if the utterance is so quiet that it may be background speech.
    """

    speech_end: int
    at: int
    faint: bool = False


@dataclass(frozen=True, slots=True)
class SpeechResumed:
    """Speech has resumed after a tentative end, before the turn was committed. `at` is its first new sample."""

    at: int


SpeechEvent = SpeechStarted | SoftEnd | SpeechResumed
Step = tuple[SpeechState, tuple[SpeechEvent, ...]]

_SPEAKING = frozenset({SpeechPhase.SPEECH, SpeechPhase.TRAILING})
_UNDER_WAY = frozenset({SpeechPhase.SPEECH, SpeechPhase.TRAILING, SpeechPhase.ENDED})
_HOLDING = frozenset({SpeechPhase.ONSET, SpeechPhase.SPEECH, SpeechPhase.RESUMING})


def step(
    state: SpeechState, settings: SpeechSettings, probability: float, window_end: int, *, power: float | None = None
) -> Step:
    """Return the state after one window, and the speech events that it causes.

    Args:
        state: The state before the window.
        settings: Thresholds and durations. They may change between windows.
        probability: The window's speech probability.
        window_end: Sample index after the window, at 16 kHz, counted from the start of the call.
        power: Mean square of the window's samples. The scale is free, but must stay the same during a call. It is used
            only if `state.listens`. None disables the higher thresholds for windows whose level has dropped.
    """
    threshold = settings.release_threshold if state.phase in _HOLDING else settings.threshold
    if state.phase in _SPEAKING and power is not None:
        threshold = max(threshold, _drop_threshold(settings, power, state.level))
    loud = probability >= threshold
    state, loud = _without_background(state, loud, power, window_end)
    after, events = _loud(state, settings, window_end) if loud else _quiet(state, settings, window_end)
    level = max(power or 0.0, state.level * LEVEL_DECAY) if loud and after.listens else state.level * after.listens
    peak, near, over_background = _peak(after, state, power, window_end)
    dip = _dip(state, power, window_end)
    return replace(after, level=level, dip=dip, peak=peak, near=near, over_background=over_background), events


def _without_background(
    state: SpeechState, loud: bool, power: float | None, window_end: int
) -> tuple[SpeechState, bool]:
    """End the caller's speech if only quieter background speech continues.

    A television or other people behind the caller are speech for the VAD model too. A caller who speaks reaches a level
    near the utterance's peak about once a second. After REMOTE_MS without such a window, the caller's speech has ended
    with the last window near the peak.

    Args:
        state: The state before the window.
        loud: Whether the window's speech probability reaches its threshold.
        power: Mean square of the window's samples. None skips the check.
        window_end: Sample index after the window.

    Returns:
        The state, and whether the window counts as speech of the caller.
    """
    if not loud or power is None or state.phase not in _UNDER_WAY | {SpeechPhase.RESUMING}:
        return state, loud
    if power >= state.peak * _REMOTE:
        return state, True
    if state.over_background:
        return state, False
    if state.phase in _SPEAKING and window_end - state.near >= _samples(REMOTE_MS):
        return replace(state, phase=SpeechPhase.TRAILING, speech_end=state.near, over_background=True), False
    return state, True


def _peak(after: SpeechState, before: SpeechState, power: float | None, window_end: int) -> tuple[float, int, bool]:
    """Return the new values of `SpeechState.peak`, `near` and `over_background`, in this order.

    Args:
        after: The state after the window, with the old values of the three attributes.
        before: The state before the window.
        power: Mean square of the window's samples. None counts as near the peak.
        window_end: Sample index after the window.
    """
    if not after.listens:
        return 0.0, window_end, False
    peak = max(power or 0.0, before.peak * PEAK_DECAY)
    near = window_end if power is None or power >= peak * _REMOTE else before.near
    return peak, near, before.over_background and after.phase is not SpeechPhase.SPEECH


def committed(state: SpeechState) -> SpeechState:
    """Return the state after the turn was committed: the next speech starts a new utterance.

    Speech that has begun but is too short to be reported is kept, and becomes part of the next utterance.
    """
    phase = SpeechPhase.ONSET if state.phase in (SpeechPhase.ONSET, SpeechPhase.RESUMING) else SpeechPhase.SILENCE
    return replace(state, phase=phase)


def silence(state: SpeechState, now_sample: int) -> int:
    """Return the number of samples from the end of the last speech to `now_sample`.

    If there was no speech yet, the samples count from the start of the call.
    """
    return max(0, now_sample - state.speech_end)


def _drop_threshold(settings: SpeechSettings, power: float, level: float) -> float:
    """Return the speech probability that a window with a large drop of level must reach to count as speech.

    The result is 0, which adds no condition, if `power` is less than HUSH_DB below `level`.

    Args:
        settings: `drop_30db_threshold` and `drop_40db_threshold`.
        power: Mean square of the window's samples.
        level: Reference power of the utterance (`SpeechState.level`).
    """
    if power < level * _GONE:
        return max(settings.drop_30db_threshold, settings.drop_40db_threshold)
    return settings.drop_30db_threshold if power < level * _HUSHED else 0.0


def _dip(state: SpeechState, power: float | None, window_end: int) -> int | None:
    """Return the new value of `SpeechState.dip`: the end of the first window of the current dip, or None.

    A window belongs to a dip if its power is at least DIP_DB below the level of the utterance.
    """
    if power is None or state.phase not in _UNDER_WAY or power >= state.level * _DIPPED:
        return None
    return window_end if state.dip is None else state.dip


def _loud(state: SpeechState, settings: SpeechSettings, window_end: int) -> Step:
    window_start = window_end - VAD_WINDOW
    match state.phase:
        case SpeechPhase.SILENCE | SpeechPhase.ONSET:
            start = state.run_start if state.phase is SpeechPhase.ONSET else window_start
            if window_end - start < _samples(settings.min_speech_ms):
                return replace(state, phase=SpeechPhase.ONSET, run_start=start), ()
            return SpeechState(SpeechPhase.SPEECH, start, window_end), (SpeechStarted(start),)
        case SpeechPhase.ENDED | SpeechPhase.RESUMING:
            start = state.run_start if state.phase is SpeechPhase.RESUMING else window_start
            if window_end - start < RESUME_WINDOWS * VAD_WINDOW:
                return replace(state, phase=SpeechPhase.RESUMING, run_start=start), ()
            return SpeechState(SpeechPhase.SPEECH, start, window_end), (SpeechResumed(start),)
        case SpeechPhase.TRAILING:
            return SpeechState(SpeechPhase.SPEECH, window_start, window_end), ()
        case SpeechPhase.SPEECH:
            return replace(state, speech_end=window_end), ()


def _quiet(state: SpeechState, settings: SpeechSettings, window_end: int) -> Step:
    match state.phase:
        case SpeechPhase.SILENCE | SpeechPhase.ONSET:
            return replace(state, phase=SpeechPhase.SILENCE), ()
        case SpeechPhase.ENDED | SpeechPhase.RESUMING:
            return replace(state, phase=SpeechPhase.ENDED), ()
        case SpeechPhase.SPEECH | SpeechPhase.TRAILING:
            if window_end - state.speech_end < _samples(settings.soft_end_ms):
                return replace(state, phase=SpeechPhase.TRAILING), ()
            return replace(state, phase=SpeechPhase.ENDED), (SoftEnd(state.speech_end, window_end),)


def _samples(ms: float) -> float:
    return ms * STT_RATE / 1000
