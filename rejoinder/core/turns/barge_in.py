"""Classification of speech over a reply by its transcript. `interruptions` acts on the result.

The turn machine cancels a paused reply only for speech that is ADDRESSED. Noise, backchannels ("mm-hm") and echoes of
the reply are not ADDRESSED. Speech with a stop word is always ADDRESSED, even if it may be an echo, because a caller
must be able to stop the agent.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

from rejoinder.core.measuring.wer import words
from rejoinder.core.settings.barge_in import BargeInSettings, Phrases
from rejoinder.core.turns.echo_guard import is_echo

_HUM = re.compile(r"(?:m+|mm+[aeho]*m*|m+h+m*|h+m+)$")
_ENGLISH_GROAN = re.compile(r"(?:n+h+n+|u+h+|u+m+|u*h+u+h+|a+h+|o+h+|e+h+|e+r+m*)$")

# Words that address the agent: a question, a request, a greeting, or something about the speaker or the agent. A
# narrator on television says neither "I" nor "you". `is_addressed` uses these words only for speech that is so quiet
# that it may be background speech (`CallerLevel.doubtful`).
_ADDRESSED_EN = re.compile(
    r"\b(?:i|i'm|i'd|i'll|i've|me|my|mine|you|your|yours|you're|please|hello|hi|hey|thanks|thank|yes|no|yeah|okay|bye"
    r"|goodbye|sorry|help)\b"
)
_REQUEST_EN = re.compile(
    r"^(?:and |so |um |uh |well )*(?:what|who|where|when|why|how|which|whose|is|are|do|does|did|can|could|will|would"
    r"|should|tell|show|give|call|book|cancel|change|send|play|set|find|open|close|start|stop|wait|repeat|say|read"
    r"|write|explain|transfer|connect|check|order|remind|turn)\b"
)
ECHO_SLACK_S = 0.7
"""Seconds by which an echo may seem longer than the played audio: the time until a client stops its loudspeaker, and
reverberation."""

_SHORT_ANSWER = 4
_UNSURE_WORDS = 2
_SHORT_ANSWERS = frozenset({"no", "yes", "what", "why", "who", "hello", "help", "nein", "ja"})
_NUMBER = re.compile(r"\d|\b(?:zero|one|two|three|four|five|six|seven|eight|nine)\b")


class SpeechKind(Enum):
    """Class of an utterance over a reply, or just after one.

    ADDRESSED: it is meant for the agent. NO_WORDS: noise, or fewer words than `min_words`. BACKCHANNEL: only
    backchannels. ECHO: the agent's own voice. BACKGROUND: other people or a television (`caller_level`).

    Values are labels of the metric `rejoinder_dismissed_speech_total`.
    """

    ADDRESSED = "addressed"
    NO_WORDS = "no_words"
    BACKCHANNEL = "backchannel"
    ECHO = "echo"
    BACKGROUND = "background"


@dataclass(frozen=True, slots=True)
class AgentSpeech:
    """The agent's speech during an utterance of the caller.

    Attributes:
        text: The words of the reply that the caller's microphone may have picked up as an echo.
        interrupted: Whether the caller's speech interrupts the reply. False if the reply has ended, or if the client
            has switched interruptions off.
        remaining_s: Seconds of the reply that have not been played yet.
        played_s: Seconds of the reply that have been played.
    """

    text: str
    interrupted: bool
    remaining_s: float
    played_s: float = math.inf


def classify_speech(
    text: str, agent: AgentSpeech, settings: BargeInSettings, language: str, *, speech_s: float = 0.0
) -> SpeechKind:
    """Return the class of speech over a reply, or just after one.

    Args:
        text: The transcript of the speech, whole or interim.
        agent: The agent's speech at the same time.
        settings: The number of words that ends a reply, phrase lists, and whether the echo guard is on.
        language: Language code, such as "en", which selects the phrase lists.
        speech_s: Length of the speech in seconds. Speech that is longer than the played part of the reply is no echo of
            it: a caller who goes on after a pause may say the words with which a reply has just begun.
    """
    heard = words(text)
    if has_stop_word(text, settings, language):
        return SpeechKind.ADDRESSED
    may_echo = settings.echo_guard and speech_s <= agent.played_s + ECHO_SLACK_S
    if may_echo and is_echo(heard, words(agent.text)):
        return SpeechKind.ECHO
    if not agent.interrupted or not settings.min_words:
        return SpeechKind.ADDRESSED
    if heard and agent.remaining_s * 1000 <= settings.answer_window_ms:
        return SpeechKind.ADDRESSED
    hums = [word for word in heard if is_hum(word, language)]
    spoken = [word for word in heard if not is_hum(word, language)]
    counted = len(spoken) - sum(_phrase_lengths(spoken, settings.backchannels, language))
    if counted >= settings.min_words:
        return SpeechKind.ADDRESSED
    return SpeechKind.BACKCHANNEL if (spoken or hums) and not counted else SpeechKind.NO_WORDS


def is_hum(word: str, language: str) -> bool:
    """Return True if a recognized "word" is a sound with a closed mouth, such as "m", "mmm", "hmmm" or "mmo".

    Recognizers have no word for "mm-hmm". They write letters ("M M M") or a string that begins with "mm", which is not
    a word. In English, groans ("uhh", "ah") count too. In other languages a groan may be a word: "um" in German.

    Args:
        word: The word in lower case.
        language: Language code, such as "en".
    """
    return bool(_HUM.match(word) or (language == "en" and _ENGLISH_GROAN.match(word)))


def is_addressed(text: str, asked: str = "", language: str = "en") -> bool:
    """Return True if the words address the agent.

    Args:
        text: The transcript.
        asked: What the assistant said before. A short answer to its question addresses the agent.
        language: Language code. In a language other than "en", only a question mark counts.
    """
    if text.rstrip().endswith("?"):
        return True
    if language != "en":
        return False
    said = text.lower().strip()
    if _ADDRESSED_EN.search(said) or _REQUEST_EN.search(said):
        return True
    return asked.rstrip().endswith("?") and (len(said.split()) <= _SHORT_ANSWER or bool(_NUMBER.search(said)))


def is_unsure(text: str, logprob: float, speech_ms: float, settings: BargeInSettings, *, language: str) -> bool:
    """Return True if short speech over a reply is more probably a sound than the words that were recognized.

    Recognizers write a word with low confidence for a "mm-hm" or for the clearing of a throat. Speech is unsure if it
    has at most two words, lasts at most `unsure_ms`, and has a confidence below `unsure_logprob`. Stop words and common
    short answers ("yes", "what") are never unsure.

    Args:
        text: The transcript.
        logprob: Mean log-probability of its tokens (natural logarithm).
        speech_ms: Length of the speech in milliseconds.
        settings: The limits `unsure_ms` and `unsure_logprob`, and the stop words.
        language: Language code of the stop words.
    """
    heard = words(text)
    if speech_ms > settings.unsure_ms or len(heard) > _UNSURE_WORDS or logprob >= settings.unsure_logprob:
        return False
    return not (has_stop_word(text, settings, language) or set(heard) & _SHORT_ANSWERS)


def has_stop_word(text: str, settings: BargeInSettings, language: str) -> bool:
    """Return True if the transcript contains a stop word or phrase of the language, such as "wait" or "hold on"."""
    return bool(_phrase_lengths(words(text), settings.stop_words, language))


def _phrase_lengths(heard: Sequence[str], phrases: Phrases, language: str) -> list[int]:
    """Return the length, in words, of each occurrence of one of the language's phrases in `heard`.

    Occurrences do not overlap. Where several phrases begin at the same word, the longest one counts.
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
