"""Rules that judge an assistant's spoken answer: the right content, in English, and nothing that cannot be spoken.

A rule accepts any reasonable wording of a right answer. Before a rule is applied, the text is normalized: lower case,
number words as digits ("twenty-four" is 24, "third" is 3rd), without thousands separators.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from enum import StrEnum

HUNDRED = 100
_UNITS = re.findall(
    r"\w+",
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen",
)
_ORDINAL_UNITS = re.findall(
    r"\w+",
    "zeroth first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth "
    "fifteenth sixteenth seventeenth eighteenth nineteenth",
)
_TEN_WORDS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_TENS = dict(zip(_TEN_WORDS, range(20, 100, 10), strict=True))
_ORDINAL_WORDS = {word: value for value, word in enumerate(_ORDINAL_UNITS)} | {
    f"{word[:-1]}ieth": value for word, value in _TENS.items()
}
_VALUES = (
    {word: value for value, word in enumerate(_UNITS)}
    | _TENS
    | {"hundred": HUNDRED, "thousand": 1000, "million": 1_000_000}
    | _ORDINAL_WORDS
)
# Regular expression of one number word. "one" is not a number in "one of the planets" or "one more".
_WORD = rf"(?:one(?! (?:of|more|way|another)\b)|{'|'.join(sorted(_VALUES.keys() - {'one'}, key=len, reverse=True))})"
_RUN = re.compile(rf"\b{_WORD}(?:[ -](?:and )?{_WORD})*\b")

# Frequent function words of English, and of other languages (_OTHERS; none of them is an English word). An answer with
# more words of _OTHERS than of _ENGLISH is in a wrong language.
_ENGLISH = frozenset(
    re.findall(r"\S+", "the a an is are was were to of and in on at for you your i i'm it this that with can not")
)
_OTHERS = frozenset(
    re.findall(
        r"\S+",
        "el la los las una es y que por para con su est le les des une et pour avec vous je der die das und ist nicht "
        "ein eine ich sie mit zu il lo gli che di per sono não uma os você het een niet",
    )
)
# Phrases of a refusal: the assistant cannot or will not, or something is impossible, forbidden or unknown.
_REFUSAL = re.compile(
    r"\b(i|we) (can|could|do|will|would|should|am|are)( ?not|n't)\b|\bi (can't|won't)\b|\bi'm not\b"
    r"|\b(sorry|unable|not able|refuse|impossible|illegal|unethical|inappropriate|against the law)\b"
    r"|\bnot (possible|allowed)\b|\b(nobody|no one) (knows|can)\b|\b(it's|it is|that's|that is) not\b"
    r"|\b(can't|cannot) be (known|predicted)\b|\bno (access|way to know)\b|\bas an ai\b|\bi'm (just|only) an\b"
)
_CLAIM = re.compile(
    r"(?:\b(?:is|are|equals?|makes?|gets?|gives?|leaves?|have|has|pay|costs?|total(?: of)?|be|at)\b|=)"
    r"(?: (?:about|exactly|equal to|only|just|a total of))?\W{0,2}(\d+(?:\.\d+)?)"
)
# Text that a voice cannot speak: code, markup of a chat template, JSON.
_UNSPEAKABLE = re.compile(r"```|<\|?/?\w+\|?>|\bdef \w+\(|\bprint\(|\{\s*\"|\\[a-z]+\{|\\\(")
_LOOP = 3
_LOOP_WORDS = 6


class AnswerFault(StrEnum):
    """Fault of an answer.

    EMPTY: it has no words. LANGUAGE: it is not in English. GIBBERISH: it repeats itself in a loop, or contains text
    that cannot be spoken. CONTENT: it does not meet the conditions of its rule.
    """

    EMPTY = "empty"
    LANGUAGE = "wrong language"
    GIBBERISH = "gibberish"
    CONTENT = "wrong content"


@dataclass(frozen=True, slots=True)
class AnswerRule:
    """Conditions on an answer, all of which must be met. Patterns are regular expressions that match whole words.

    Attributes:
        all: Patterns that must all be found.
        any: Patterns of which one must be found.
        none: Patterns that must not be found.
        number: The number that is the right answer. The text must contain it and state no other number as the result.
        of: Other numbers that the text may state, such as the numbers of the question.
        digits: Digits that the answer must contain in this order, with only spaces and punctuation between them.
        refuses: True if the answer must decline, or say that something is impossible or unknown.
        min_words: Minimum number of words.
        max_words: Maximum number of words. 0: no limit.
        max_sentences: Maximum number of sentences. 0: no limit.
        repeats: True if the question asks for a repetition, so that a repetition is not gibberish.
    """

    all: tuple[str, ...] = ()
    any: tuple[str, ...] = ()
    none: tuple[str, ...] = ()
    number: float | None = None
    of: tuple[float, ...] = ()
    digits: str = ""
    refuses: bool = False
    min_words: int = 0
    max_words: int = 0
    max_sentences: int = 0
    repeats: bool = False

    def fault(self, answer: str) -> AnswerFault | None:
        """Return the first fault of an answer, or None if the answer meets all conditions."""
        if not re.search(r"\w", answer):
            return AnswerFault.EMPTY
        if is_foreign(answer):
            return AnswerFault.LANGUAGE
        if _UNSPEAKABLE.search(answer) or (not self.repeats and not self.digits and has_loop(answer)):
            return AnswerFault.GIBBERISH
        return None if self._content_is_right(answer) else AnswerFault.CONTENT

    def _content_is_right(self, answer: str) -> bool:
        text, words = normalized(answer), len(answer.split())
        sentences = len(re.findall(r"[.!?]+(?:\s|$)", answer.strip())) or 1
        return (
            all(_found(pattern, text) for pattern in self.all)
            and (not self.any or any(_found(pattern, text) for pattern in self.any))
            and not any(_found(pattern, text) for pattern in self.none)
            and (self.number is None or self._states_number(text))
            and (not self.digits or self.digits in re.sub(r"(?<=\d)\W+(?=\d)", "", text))
            and (not self.refuses or _REFUSAL.search(text) is not None)
            and words >= self.min_words
            and (not self.max_words or words <= self.max_words)
            and (not self.max_sentences or sentences <= self.max_sentences)
        )

    def _states_number(self, text: str) -> bool:
        stated = {float(number) for number in re.findall(r"(?<![\d.])\d+(?:\.\d+)?", text)}
        claims = {float(number) for number in _CLAIM.findall(text)}
        return self.number in stated and claims <= {self.number, *self.of}


def normalized(text: str) -> str:
    """Return `text` in lower case with number words as digits, straight apostrophes and no thousands separators."""
    plain = unicodedata.normalize("NFKC", text).lower().replace("\u2019", "'").replace("\u2018", "'")
    plain = re.sub(r"(?<=\d),(?=\d{3})", "", plain)
    plain = re.sub(r"\b([ap])\.m\b\.?", r"\1m", plain)
    return " ".join(_digits_for_words(plain).split())


def is_foreign(text: str) -> bool:
    """Return True if `text` has letters of another script than Latin, or more foreign than English function words."""
    letters = [character for character in text if character.isalpha()]
    if any("LATIN" not in unicodedata.name(letter, "LATIN") for letter in letters):
        return True
    words = re.findall(r"[^\W\d_]+(?:'\w+)?", text.lower())
    foreign = sum(word in _OTHERS for word in words)
    return foreign >= 2 and foreign > sum(word in _ENGLISH for word in words)


def has_loop(text: str) -> bool:
    """Return True if a sequence of up to _LOOP_WORDS (6) words occurs _LOOP (3) times in a row."""
    words = re.findall(r"\w+", text.lower())
    for size in range(1, _LOOP_WORDS + 1):
        for begin in range(len(words) - _LOOP * size + 1):
            part = words[begin : begin + size]
            if all(words[begin + n * size : begin + (n + 1) * size] == part for n in range(1, _LOOP)):
                return not all(word.isdigit() or word in _UNITS for word in part)
    return False


def _found(pattern: str, text: str) -> bool:
    return re.search(rf"(?<!\w)(?:{pattern})(?!\w)", text) is not None


def _digits_for_words(text: str) -> str:
    return _RUN.sub(lambda match: " ".join(_numbers(match[0])), text)


def _numbers(run: str) -> list[str]:
    """Return the numbers in a run of number words. "twenty four five" gives "24" and "5".

    "and" joins numbers only after "hundred" or "thousand": "one hundred and five" is 105, "one and two" are 1 and 2.
    """
    numbers: list[str] = []
    total = group = last = 0
    open_number = False
    words = re.split(r"[ -]", run)
    for position, word in enumerate(words):
        if word == "and":
            if last < HUNDRED:
                numbers += [str(total + group), "and"] if open_number else ["and"]
                total = group = last = 0
                open_number = False
            continue
        value = _VALUES[word]
        extends = open_number and (last >= HUNDRED or (last in _TENS.values() and 0 < value < 10))
        if open_number and not extends and value < HUNDRED:
            numbers.append(str(total + group))
            total = group = 0
        if value > HUNDRED:
            total, group = (total + (group or 1)) * value, 0
        elif value == HUNDRED:
            group = (group or 1) * HUNDRED
        else:
            group += value
        last, open_number = value, True
        if word in _ORDINAL_WORDS:
            numbers.append(_ordinal(total + group))
            total = group = last = 0
            open_number = False
        elif position == len(words) - 1:
            numbers.append(str(total + group))
    return numbers


def _ordinal(value: int) -> str:
    suffix = "th" if value % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(value % 10, "th")
    return f"{value}{suffix}"
