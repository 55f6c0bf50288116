"""Text rules of the answer cache, for English: are two questions the same, and what does a question depend on?

Sentence embeddings are close for questions that differ in the one word that matters ("on Monday", "on Tuesday"; "with a
receipt", "without"). A rule on words therefore applies too: both questions must have the same content words in the same
order, and at least two of them. Articles, plain auxiliaries, "you", "what" and requests ("please tell me") are not
content words. Negations, prepositions, tenses, other question words and numbers are. Words are compared by their
approximate stems. If unsure, the rule treats two questions as different, so that the language model answers.
"""

from __future__ import annotations

import re
import unicodedata
from itertools import pairwise

_OPENING_SIGNS = "\"'([{\u201c\u2018\u00ab"
_CLOSING_SIGNS = ".,;:!?\u2026\"')]}\u201d\u2019\u00bb"

# Contractions and their full forms. Regular endings such as "n't" are in _ENDINGS.
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
_STOP_WORDS = frozenset(
    {"a", "an", "the", "any", "some", "is", "are", "am", "be", "do", "does", "have", "has", "can", "could", "may"}
    | {"would", "you", "your", "i", "we", "there", "it", "what", "which", "of", "please", "hello", "hi", "hey"}
    | {"um", "uh", "er", "erm"}
)
_FEWEST_CONTENT_WORDS = 2
_VOWEL = re.compile(r"[aeiouy]")
_SHORTEST_STEM = 4

_FIRST_PERSON = frozenset({"my", "mine", "myself", "our", "ours", "ourselves"})
# The words before "I" or "me" after which a question is not about the caller. "Can I park here?" and "Tell me about
# parking" are general questions. "Am I late?" is about the caller.
_GENERAL_AFTER = {
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

_TIME_WORDS = frozenset(
    {"today", "tonight", "tomorrow", "yesterday", "now", "currently", "current", "presently", "latest", "recent"}
    | {"recently", "newest", "news", "weather", "forecast", "temperature", "rain", "price", "prices", "cost", "costs"}
    | {"rate", "rates", "balance", "status", "score", "queue", "date", "still", "yet", "already", "soon", "ago"}
    | {"available", "availability", "stock", "delayed", "delay", "upcoming", "next", "last", "moment"}
)
_PERIODS = frozenset({"minute", "hour", "morning", "afternoon", "evening", "night", "weekend", "week", "month", "year"})

_POINTERS = frozenset(
    {"it", "its", "that", "this", "these", "those", "they", "them", "their", "theirs", "he", "him", "his", "she"}
    | {"her", "hers", "there", "then", "one", "ones", "else", "other", "others", "another", "again", "also", "too"}
    | {"same", "instead", "more", "such", "both", "either", "neither", "previous", "former", "latter", "here"}
)
_CONTINUATIONS = frozenset({"and", "or", "but", "so", "because", "yes", "no", "yeah", "nope", "okay", "ok", "then"})
_LEAST_WORDS_ALONE = 4


def normalize(text: str) -> str:
    """Return the text as exact matches compare it: words in lower case, without the punctuation around them.

    Punctuation inside words stays, and so do signs that begin a number ("-3", "$5", "3.5").
    """
    plain = unicodedata.normalize("NFKC", text).replace("\u2019", "'").casefold()
    words = (word.lstrip(_OPENING_SIGNS).rstrip(_CLOSING_SIGNS) for word in plain.split())
    return " ".join(word for word in words if word)


def same_question(one: str, other: str) -> bool:
    """Return True if both questions have the same content words in the same order, and at least two of them."""
    content = content_words(one)
    return tells(content) and content == content_words(other)


def tells(content: tuple[str, ...]) -> bool:
    """Return True if there are at least two content words, which is enough to identify a question."""
    return len(content) >= _FEWEST_CONTENT_WORDS


def content_words(text: str) -> tuple[str, ...]:
    """Return the approximate stems of the content words of a question, in order."""
    words = _joined(_impersonal(text))
    return tuple(_stem(word) for word in words if word not in _STOP_WORDS)


def personal(text: str) -> bool:
    """Return True if a question is about the caller.

    Such a question contains "I", "me" or "my", an introduction ("my name is"), an e-mail address, or a number that may
    identify a person or an order. The "I" of "Can I ...?" and the "me" of "tell me" do not count.
    """
    words = _impersonal(text)
    if "@" in text or _FIRST_PERSON.intersection(words):
        return True
    for before, word in zip(["", *words], words, strict=False):
        if word in _GENERAL_AFTER and before not in _GENERAL_AFTER[word]:
            return True
    if any(pair in _SELF_INTRODUCTIONS for pair in pairwise(words)):
        return True
    return _identifies(words)


def time_dependent(text: str) -> bool:
    """Return True if a text mentions something that changes with time, such as "now", a price or "this week"."""
    words = _full_forms(normalize(text))
    if _TIME_WORDS.intersection(words):
        return True
    joined = f" {' '.join(words)} "
    if " time is it " in joined or " the time " in joined or " how much is " in joined or " how much are " in joined:
        return True
    return any(first == "this" and _stem(second) in _STEMMED_PERIODS for first, second in pairwise(words))


def stands_alone(text: str) -> bool:
    """Return True if a question can be understood without the conversation before it.

    Return False if the question has a word that points to earlier text ("it", "another"), or if it is a shortened
    question ("And on Sunday?").
    """
    words = _full_forms(normalize(text))
    if len(words) < _LEAST_WORDS_ALONE or words[0] in _CONTINUATIONS or words[1] == "about":
        return False
    return not _POINTERS.intersection(words)


def _impersonal(text: str) -> list[str]:
    """Return the normalized words of a text without a polite start such as "can you tell me"."""
    return _POLITE_START.sub("", " ".join(_full_forms(normalize(text)))).split()


def _full_forms(text: str) -> list[str]:
    """Return the words of a normalized text, with contractions replaced by their full forms."""
    words: list[str] = []
    for word in text.split():
        full = _CONTRACTIONS.get(word, word)
        for ending, form in _ENDINGS.items():
            if full.endswith(ending) and len(full) > len(ending):
                full = full.removesuffix(ending) + form
        words += full.split()
    return words


def _joined(words: list[str]) -> list[str]:
    """Return the words with pairs of similar meaning replaced by one word: "need to" and "have to" become "must"."""
    joined: list[str] = []
    at = 0
    while at < len(words):
        phrase = _PHRASES.get((words[at], words[at + 1])) if at + 1 < len(words) else None
        joined += phrase or (words[at],)
        at += 2 if phrase else 1
    return joined


def _stem(word: str) -> str:
    """Return the approximate stem: a word without "'s", plural, "-ing", "-ed" and final "e".

    Short words and words with digits are not shortened, except for "'s".
    """
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


_STEMMED_PERIODS = frozenset(_stem(word) for word in _PERIODS)


def _identifies(words: list[str]) -> bool:
    """Return True if the words contain four digits, or four spoken digits in a row.

    They may be a card, telephone or order number.
    """
    if sum(char.isdigit() for word in words for char in word) >= _DIGITS_THAT_IDENTIFY:
        return True
    run = 0
    for word in words:
        run = run + 1 if word in _NUMBER_WORDS else 0
        if run >= _DIGITS_THAT_IDENTIFY:
            return True
    return False
