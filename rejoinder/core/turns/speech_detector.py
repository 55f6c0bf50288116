"""From speech probabilities to speech edges: hysteresis over 32 ms windows.

Two thresholds keep one doubtful window from toggling the answer: outside speech a window must reach `threshold`
to count, inside speech it may sink to `release_threshold`. Two durations keep a click from opening a turn
(`min_speech_ms`) and a stop consonant from closing it (`soft_end_ms`).

              loud              min_speech_ms            quiet               soft_end_ms
    SILENCE ---------> ONSET ----------------> SPEECH ----------> TRAILING --------------> ENDED
       ^                 |     SpeechStarted      ^ ^               |            SoftEnd    |  ^
       |      quiet      |                        | |     loud      |                  loud |  | quiet
       +-----------------+                        | +---------------+                       v  |
                                                  +----------------------------------- RESUMING
                                                             SpeechResumed

ENDED is a question, not an answer: work has begun, the turn is not committed. Either the caller goes on (RESUMING,
then SpeechResumed) or the turn is committed and `committed` returns to SILENCE. Going on needs less evidence than
starting: the caller has just been speaking, and a reply withheld costs less than words cut off.

The detector's probability falls slowly: two or three windows behind the end of a word it still says speech. The sound
itself is gone by then. So a window in which it is HUSH_DB quieter than the utterance's loudest must reach
`drop_20db_threshold`, a higher bar, and one that is GONE_DB quieter `drop_30db_threshold`, a higher one still. In
noise nothing
is ever so quiet, and the probability decides alone.

Silence is counted from `speech_end`, the end of the last window that counted as speech; a noise too short to be
speech moves nothing. The machine counts samples, not time, so it gives the same answer for a recording as live.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from rejoinder.core.audio.pcm import STT_RATE, VAD_WINDOW
from rejoinder.core.settings.settings import SpeechSettings

RESUME_WINDOWS = 2
"""Windows of speech that continue a turn (64 ms). Hugging Face speech-to-speech asks half of what opens one
(192 ms against 384); ours opens with three windows, so two."""


HUSH_DB = 30.0
"""Speech within one utterance seldom spans more, but for the ends of words. On 83 clips, nearly all human, this made 5%
more soft ends, and the last ones a window sooner in two of four spoken questions."""

GONE_DB = 40.0
"""No sound of speech is so faint beside its vowels; what the detector still hears there is its own memory. Within words
it is sure of speech even where a stop closes the mouth, hence a bar instead of silence at once. On 148 human clips this
made 17% more soft ends, and 44% of the last ones a window sooner; on six of a synthetic voice, five of six."""

DIP_DB = 20.0
"""A fall by so much while voice activity is still sure of speech is a closed mouth, the end of a word, or of all: a
good moment to guess at what was said. On 72 human clips with 148 soft ends it came 96 ms before them at the median, and
1.6 times a second of speech."""

_DIPPED, _HUSHED, _GONE = 10 ** (-DIP_DB / 10), 10 ** (-HUSH_DB / 10), 10 ** (-GONE_DB / 10)

LEVEL_DECAY = 10 ** (-0.2 / 10)
"""The loudest window is forgotten by 0.2 dB a window, 6 dB a second: a shout is not the measure of what follows."""


class SpeechPhase(Enum):
    """Where the caller is between two commits; ONSET and RESUMING are speech not yet long enough to believe."""

    SILENCE = "silence"
    ONSET = "onset"
    SPEECH = "speech"
    TRAILING = "trailing"
    ENDED = "ended"
    RESUMING = "resuming"


@dataclass(frozen=True, slots=True)
class SpeechState:
    """`run_start`: first sample of the newest run of speech windows; `speech_end`: after the last believed one.

    `level`: the power of the utterance's loudest window, which is forgotten with time. `dip`: the sample behind the
    first of the newest windows that are all DIP_DB quieter; None if the last one was not.
    """

    phase: SpeechPhase = SpeechPhase.SILENCE
    run_start: int = 0
    speech_end: int = 0
    level: float = 0.0
    dip: int | None = None

    @property
    def listens(self) -> bool:
        """Whether a window's power matters."""
        return self.phase is not SpeechPhase.SILENCE


@dataclass(frozen=True, slots=True)
class SpeechStarted:
    """The caller speaks, since sample `at`."""

    at: int


@dataclass(frozen=True, slots=True)
class SoftEnd:
    """The caller has been silent for a moment: speech ended at `speech_end`, which is known at sample `at`."""

    speech_end: int
    at: int


@dataclass(frozen=True, slots=True)
class SpeechResumed:
    """After a soft end and before a commit the caller goes on, since sample `at`."""

    at: int


SpeechEvent = SpeechStarted | SoftEnd | SpeechResumed
Step = tuple[SpeechState, tuple[SpeechEvent, ...]]

_SPEAKING = frozenset({SpeechPhase.SPEECH, SpeechPhase.TRAILING})
_UNDER_WAY = frozenset({SpeechPhase.SPEECH, SpeechPhase.TRAILING, SpeechPhase.ENDED})
_HOLDING = frozenset({SpeechPhase.ONSET, SpeechPhase.SPEECH, SpeechPhase.RESUMING})


def step(
    state: SpeechState, settings: SpeechSettings, probability: float, window_end: int, *, power: float | None = None
) -> Step:
    """Take one window's speech probability; `window_end` is the absolute sample index after it, at 16 kHz.

    `power`: the window's mean square, on any scale; only read while `listens`, and None for who does not know it.
    """
    bar = settings.release_threshold if state.phase in _HOLDING else settings.threshold
    if state.phase in _SPEAKING and power is not None:
        bar = max(bar, _bar(settings, power, state.level))
    loud = probability >= bar
    after, events = _loud(state, settings, window_end) if loud else _quiet(state, settings, window_end)
    level = max(power or 0.0, state.level * LEVEL_DECAY) if loud and after.listens else state.level * after.listens
    return replace(after, level=level, dip=_dip(state, power, window_end)), events


def committed(state: SpeechState) -> SpeechState:
    """The turn was taken: back to silence, so the next speech is a start. A run that has just begun is kept."""
    phase = SpeechPhase.ONSET if state.phase in (SpeechPhase.ONSET, SpeechPhase.RESUMING) else SpeechPhase.SILENCE
    return replace(state, phase=phase)


def silence(state: SpeechState, now_sample: int) -> int:
    """Samples since the last believed speech (since the stream began, if there was none)."""
    return max(0, now_sample - state.speech_end)


def _bar(settings: SpeechSettings, power: float, level: float) -> float:
    """What a window of this power must reach beside sound of this level; 0 if it is loud enough."""
    if power < level * _GONE:
        return max(settings.drop_20db_threshold, settings.drop_30db_threshold)
    return settings.drop_20db_threshold if power < level * _HUSHED else 0.0


def _dip(state: SpeechState, power: float | None, window_end: int) -> int | None:
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
