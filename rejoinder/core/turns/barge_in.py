"""Classification of speech over a reply by its transcript. `interruptions` acts on the result.

The turn machine cancels a paused reply only for speech that is ADDRESSED. Noise, backchannels ("mm-hm") and echoes of
the reply are not ADDRESSED. Speech with a stop word is always ADDRESSED, even if it may be an echo, because a caller
must be able to stop the agent.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

from rejoinder.core.measuring.wer import words
from rejoinder.core.settings.barge_in import BargeInSettings, Phrases
from rejoinder.core.turns.echo_guard import is_echo


class SpeechKind(Enum):
    """Class of an utterance over a reply, or just after one.

    ADDRESSED: it is meant for the agent. NO_WORDS: noise, or fewer words than `min_words`. BACKCHANNEL: only
    backchannels. ECHO: the agent's own voice. Values are labels of the metric `rejoinder_dismissed_speech_total`.
    """

    ADDRESSED = "addressed"
    NO_WORDS = "no_words"
    BACKCHANNEL = "backchannel"
    ECHO = "echo"


@dataclass(frozen=True, slots=True)
class AgentSpeech:
    """The agent's speech during an utterance of the caller.

    Attributes:
        text: The words of the reply that the caller's microphone may have picked up as an echo.
        interrupted: Whether the caller's speech interrupts the reply. False if the reply has ended, or if the client
            has switched interruptions off.
        remaining_s: Seconds of the reply that have not been played yet.
    """

    text: str
    interrupted: bool
    remaining_s: float


def classify_speech(text: str, agent: AgentSpeech, settings: BargeInSettings, language: str) -> SpeechKind:
    """Return the class of speech over a reply, or just after one.

    Args:
        text: The transcript of the speech, whole or interim.
        agent: The agent's speech at the same time.
        settings: The number of words that ends a reply, phrase lists, and whether the echo guard is on.
        language: Language code, such as "en", which selects the phrase lists.
    """
    heard = words(text)
    if has_stop_word(text, settings, language):
        return SpeechKind.ADDRESSED
    if settings.echo_guard and is_echo(heard, words(agent.text)):
        return SpeechKind.ECHO
    if not agent.interrupted or not settings.min_words:
        return SpeechKind.ADDRESSED
    if heard and agent.remaining_s * 1000 <= settings.answer_window_ms:
        return SpeechKind.ADDRESSED
    counted = len(heard) - sum(_phrase_lengths(heard, settings.backchannels, language))
    if counted >= settings.min_words:
        return SpeechKind.ADDRESSED
    return SpeechKind.BACKCHANNEL if heard and not counted else SpeechKind.NO_WORDS


def has_stop_word(text: str, settings: BargeInSettings, language: str) -> bool:
    """Return True if the transcript contains a stop word or phrase of the language, such as "wait" or "hold on"."""
    return bool(_phrase_lengths(words(text), settings.stop_words, language))


def _phrase_lengths(heard: Sequence[str], phrases: Phrases, language: str) -> list[int]:
    """Return the lengths, in words, of the phrases that occur in `heard`.

    Occurrences do not overlap. The longest phrase at each position counts.
    """
    candidates = sorted(_normalized(phrases.get(language, ())), key=len, reverse=True)
    lengths: list[int] = []
    at = 0
    while at < len(heard):
        length = next((len(phrase) for phrase in candidates if tuple(heard[at : at + len(phrase)]) == phrase), 0)
        if length:
            lengths.append(length)
        at += length or 1
    return lengths


def _normalized(phrases: Iterable[str]) -> list[tuple[str, ...]]:
    return [normalized for phrase in phrases if (normalized := tuple(words(phrase)))]
