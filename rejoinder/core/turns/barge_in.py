"""What speech over a reply, or just behind it, was: meant for us, or one of the noises that people and rooms make.

The reading decides what the turn machine does with a reply that fell silent: only words that are MEANT end it. A stop
word always is, whatever else speaks against it: that a caller can silence us matters more than any echo.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

from rejoinder.core.measuring.wer import words
from rejoinder.core.settings.barge_in import BargeInSettings, Phrases
from rejoinder.core.turns.echo_guard import is_echo


class SpeechReading(Enum):
    """Values are labels of the metric."""

    MEANT = "meant"
    NO_WORDS = "no_words"
    BACKCHANNEL = "backchannel"
    ECHO = "echo"


@dataclass(frozen=True, slots=True)
class AgentSpeech:
    """What we were saying meanwhile. `spoken`: the newest words and the next ones; `over`: whether speech interrupts
    us (else it comes behind our words, or may not interrupt them); `left_s`: what is still to be heard.
    """

    spoken: str
    over: bool
    left_s: float


def read(text: str, floor: AgentSpeech, settings: BargeInSettings, language: str) -> SpeechReading:
    """What these words, a transcript's, are."""
    said = words(text)
    if stops(text, settings, language):
        return SpeechReading.MEANT
    if settings.echo_guard and is_echo(said, words(floor.spoken)):
        return SpeechReading.ECHO
    if not floor.over or not settings.min_words:
        return SpeechReading.MEANT
    if said and floor.left_s * 1000 <= settings.answer_window_ms:
        return SpeechReading.MEANT
    counted = len(said) - sum(_runs(said, settings.backchannels, language))
    if counted >= settings.min_words:
        return SpeechReading.MEANT
    return SpeechReading.BACKCHANNEL if said and not counted else SpeechReading.NO_WORDS


def stops(text: str, settings: BargeInSettings, language: str) -> bool:
    """Whether a stop word is among these words."""
    return bool(_runs(words(text), settings.stop_words, language))


def _runs(said: Sequence[str], phrases: Phrases, language: str) -> list[int]:
    """The lengths of the phrases that occur in `said`, none overlapping another, the longest first at each place."""
    known = sorted(_spelled(phrases.get(language, ())), key=len, reverse=True)
    found: list[int] = []
    at = 0
    while at < len(said):
        length = next((len(phrase) for phrase in known if tuple(said[at : at + len(phrase)]) == phrase), 0)
        if length:
            found.append(length)
        at += length or 1
    return found


def _spelled(phrases: Iterable[str]) -> list[tuple[str, ...]]:
    return [spelled for phrase in phrases if (spelled := tuple(words(phrase)))]
