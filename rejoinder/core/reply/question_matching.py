"""Whether two questions are the same question, and what a question reveals: by their words, in English.

Sentence embeddings call questions near that differ in the one word that matters ("on Monday", "on Tuesday"; "with a
receipt", "without"). So beside them stands a rule that can be read: the content words of both must be equal, in their
order, and at least two. Articles, plain auxiliaries, "you", "what" and requests ("please tell me") are no content;
negations, prepositions, tenses, other question words and numbers are. Inflections are cut off roughly. The rule errs
towards calling questions different: then the language model is asked, which is what happens without a cache.
"""

from __future__ import annotations

import re
import unicodedata
from itertools import pairwise

_OPENING_SIGNS = "\"'([{\u201c\u2018\u00ab"
_CLOSING_SIGNS = ".,;:!?\u2026\"')]}\u201d\u2019\u00bb"

# Spoken forms of which only the full ones are compared.
_CONTRACTIONS = {
    "can't": "can not",
    "cannot": "can not",
    "won't": "will not",
    "shan't": "shall not",
    "let's": "let us",
    "what's": "what is",
    "who's": "who is",
    "where's": "where is",
    "when's": "when is",
    "how's": "how is",
    "why's": "why is",
    "it's": "it is",
    "that's": "that is",
    "there's": "there is",
    "here's": "here is",
}
_ENDINGS = {"n't": " not", "'re": " are", "'ve": " have", "'ll": " will", "'m": " am", "'d": " would"}
_PHRASES = {
    ("what", "time"): ("when",),
    ("have", "to"): ("must",),
    ("has", "to"): ("must",),
    ("need", "to"): ("must",),
}
_EMPTY_WORDS = frozenset(
    {"a", "an", "the", "any", "some", "is", "are", "am", "be", "do", "does", "have", "has", "can", "could", "may"}
    | {"would", "you", "your", "i", "we", "there", "it", "what", "which", "of", "please", "hello", "hi", "hey"}
    | {"um", "uh", "er", "erm"}
)
_FEWEST_CONTENT_WORDS = 2
_VOWEL = re.compile(r"[aeiouy]")
_SHORTEST_STEM = 4

_FIRST_PERSON = frozenset({"my", "mine", "myself", "our", "ours", "ourselves"})
# "Can I park here?" asks for everybody and "tell me" for nobody; "Do I have to pay?" and "Am I late?" are the caller's.
_NOBODY_AFTER = {
    **dict.fromkeys(("i", "we"), frozenset({"can", "could", "may", "should", "must", "might"})),
    **dict.fromkeys(("me", "us"), frozenset({"tell", "show", "teach"})),
}
_POLITE_START = re.compile(
    r"^(?:(?:hello|hi|hey|um|uh|okay|ok|so|well|please) )*"
    r"(?:i (?:would like to know|want to know|was wondering|am wondering)|do you know|let me know"
    r"|(?:(?:can|could|would|will) you )?(?:please )?(?:tell me|explain|describe)(?: to me)?)(?: about)? "
)
_DIGITS_THAT_IDENTIFY = 4
_NUMBER_WORDS = frozenset(
    ["zero", "oh", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "double", "triple"]
)
_SELF_INTRODUCTIONS = (("this", "is"), ("name", "is"), ("speaking", "is"))

_OF_NOW = frozenset(
    {"today", "tonight", "tomorrow", "yesterday", "now", "currently", "current", "presently", "latest", "recent"}
    | {"recently", "newest", "news", "weather", "forecast", "temperature", "rain", "price", "prices", "cost", "costs"}
    | {"rate", "rates", "balance", "status", "score", "queue", "date", "still", "yet", "already", "soon", "ago"}
    | {"available", "availability", "stock", "delayed", "delay", "upcoming", "next", "last", "moment"}
)
_SPAN = frozenset({"minute", "hour", "morning", "afternoon", "evening", "night", "weekend", "week", "month", "year"})

_POINTERS = frozenset(
    {"it", "its", "that", "this", "these", "those", "they", "them", "their", "theirs", "he", "him", "his", "she"}
    | {"her", "hers", "there", "then", "one", "ones", "else", "other", "others", "another", "again", "also", "too"}
    | {"same", "instead", "more", "such", "both", "either", "neither", "previous", "former", "latter", "here"}
)
_CONTINUATIONS = frozenset({"and", "or", "but", "so", "because", "yes", "no", "yeah", "nope", "okay", "ok", "then"})
_LEAST_WORDS_ALONE = 4


def normal(text: str) -> str:
    """The question as exact matches compare it: its words in lower case, without the signs around them.

    Signs inside words, and those that lead a number ("-3", "$5", "3.5"), stay.
    """
    plain = unicodedata.normalize("NFKC", text).replace("\u2019", "'").casefold()
    words = (word.lstrip(_OPENING_SIGNS).rstrip(_CLOSING_SIGNS) for word in plain.split())
    return " ".join(word for word in words if word)


def same_question(one: str, other: str) -> bool:
    """Whether both have the same content words in the same order, and enough of them to tell."""
    content = content_words(one)
    return tells(content) and content == content_words(other)


def tells(content: tuple[str, ...]) -> bool:
    """Whether so many words are enough to know a question by."""
    return len(content) >= _FEWEST_CONTENT_WORDS


def content_words(text: str) -> tuple[str, ...]:
    """What a question is about, word by word, roughly stemmed."""
    words = _joined(_impersonal(text))
    return tuple(_stem(word) for word in words if word not in _EMPTY_WORDS)


def personal(text: str) -> bool:
    """Whether it is about the caller: first person (but "can I", which asks for everybody), an introduction, an
    address, or a number that identifies.
    """
    words = _impersonal(text)
    if "@" in text or _FIRST_PERSON.intersection(words):
        return True
    for before, word in zip(["", *words], words, strict=False):
        if word in _NOBODY_AFTER and before not in _NOBODY_AFTER[word]:
            return True
    if any(pair in _SELF_INTRODUCTIONS for pair in pairwise(words)):
        return True
    return _identifies(words)


def time_dependent(text: str) -> bool:
    """Whether its answer changes with time: now, prices, the weather, "this week", "what time is it"."""
    words = _full_forms(normal(text))
    if _OF_NOW.intersection(words):
        return True
    joined = f" {' '.join(words)} "
    if " time is it " in joined or " the time " in joined or " how much is " in joined or " how much are " in joined:
        return True
    return any(first == "this" and _stem(second) in _SPANS for first, second in pairwise(words))


def stands_alone(text: str) -> bool:
    """Whether it reads as if nothing had been said before: nothing points back, nothing is left out."""
    words = _full_forms(normal(text))
    if len(words) < _LEAST_WORDS_ALONE or words[0] in _CONTINUATIONS or words[1] == "about":
        return False
    return not _POINTERS.intersection(words)


def _impersonal(text: str) -> list[str]:
    """The words without the request that they are wrapped in."""
    return _POLITE_START.sub("", " ".join(_full_forms(normal(text)))).split()


def _full_forms(text: str) -> list[str]:
    words: list[str] = []
    for word in text.split():
        full = _CONTRACTIONS.get(word, word)
        for ending, form in _ENDINGS.items():
            if full.endswith(ending) and len(full) > len(ending):
                full = full.removesuffix(ending) + form
        words += full.split()
    return words


def _joined(words: list[str]) -> list[str]:
    """Pairs that mean what one word does."""
    found: list[str] = []
    at = 0
    while at < len(words):
        phrase = _PHRASES.get((words[at], words[at + 1])) if at + 1 < len(words) else None
        found += phrase or (words[at],)
        at += 2 if phrase else 1
    return found


def _stem(word: str) -> str:
    """Without "'s", plural, "-ing", "-ed" and the last "e"; short words as they are."""
    word = word.removesuffix("'s")
    if any(char.isdigit() for char in word):
        return word
    if word.endswith("ies") and len(word) > _SHORTEST_STEM:
        word = word[:-3] + "y"
    elif word.endswith("s") and not word.endswith(("ss", "us", "is")) and len(word) > 3:
        word = word[:-1]
    for ending in ("ing", "ed"):
        base = word.removesuffix(ending)
        if base != word and len(base) >= _SHORTEST_STEM - 1 and _VOWEL.search(base):
            word = base[:-1] if len(base) > _SHORTEST_STEM and base[-1] == base[-2] and base[-1] not in "ls" else base
            break
    return word.removesuffix("e") if len(word) >= _SHORTEST_STEM else word


_SPANS = frozenset(_stem(word) for word in _SPAN)


def _identifies(words: list[str]) -> bool:
    """Four digits, or four spoken digits in a row, may be a card, a telephone or an order."""
    if sum(char.isdigit() for word in words for char in word) >= _DIGITS_THAT_IDENTIFY:
        return True
    run = 0
    for word in words:
        run = run + 1 if word in _NUMBER_WORDS else 0
        if run >= _DIGITS_THAT_IDENTIFY:
            return True
    return False
