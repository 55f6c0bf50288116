"""Word error rate of a transcript, without regard to writing conventions.

Both texts are normalized first, so that a recognizer is not penalized for style: lower case, no punctuation,
contractions as one word without the apostrophe, a few abbreviations in full, numbers in words.

Digits do not show how they were spoken, so they are read in the most common way. Numbers up to 99, round numbers and
grouped numbers are quantities ("1,250", "500", "25000"). Four digits of a recent century are a year ("1984"). Any other
string of digits is read digit by digit ("29340", "007").
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_SMALL = [
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    *("eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
]
_TENS = ["zero", "ten", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_SCALES = ((1_000_000, "million"), (1_000, "thousand"), (100, "hundred"))
# Largest number that is read as a quantity. A larger one is probably an identifier, so it is read digit by digit.
_LARGEST = 999_999_999

_SPELLINGS = {"mr": "mister", "mrs": "missus", "dr": "doctor", "ok": "okay", "cannot": "can not"}
_SIGNS = str.maketrans({**dict.fromkeys("'’‘ʼ", ""), "%": " percent ", "&": " and "})
_TOKEN = re.compile(r"(?P<grouped>\d{1,3}(?:,\d{3})+(?!\d))|(?P<digits>\d+)|(?P<word>[^\W\d_]+)")
_FRACTION = re.compile(r"\.(\d+)")
_COUNTED = re.compile(r"\d|[1-9]\d|[1-9]\d?00+|200[1-9]")
_YEAR = re.compile(r"1[5-9]\d\d|20\d\d")


def words(text: str) -> list[str]:
    """Return the normalized words of a text: lower case, no punctuation, abbreviations and numbers written out."""
    text = text.lower().translate(_SIGNS)
    spoken: list[str] = []
    at = 0
    while token := _TOKEN.search(text, at):
        at = token.end()
        if word := token["word"]:
            spoken += _SPELLINGS.get(word, word).split()
            continue
        spoken += _quantity(int(token["grouped"].replace(",", ""))) if token["grouped"] else _number(token["digits"])
        if fraction := _FRACTION.match(text, at):
            spoken += ["point", *_one_by_one(fraction[1])]
            at = fraction.end()
    return spoken


def word_errors(expected: str, heard: str) -> int:
    """Return the minimum number of substituted, inserted or deleted words between the two texts."""
    return _distance(words(expected), words(heard))


def word_error_rate(expected: str, heard: str) -> float:
    """Return the word error rate of a transcript: word errors divided by the number of expected words.

    0 is perfect, and values above 1 are possible. If no words are expected, it is 0, or infinity if any are heard.
    """
    return pooled_error_rate([(expected, heard)])


def pooled_error_rate(pairs: Iterable[tuple[str, str]]) -> float:
    """Return the word errors of all (expected, heard) pairs, divided by the number of all expected words.

    A long text therefore counts more than a short one. If no words are expected, it is 0, or infinity if any are heard.
    """
    errors = length = 0
    for expected, heard in pairs:
        errors += word_errors(expected, heard)
        length += len(words(expected))
    if not length:
        return float("inf") if errors else 0.0
    return errors / length


def _number(digits: str) -> list[str]:
    if _COUNTED.fullmatch(digits):
        return _quantity(int(digits))
    if _YEAR.fullmatch(digits):
        return [*_number(digits[:2]), *_number(digits[2:])]
    return _one_by_one(digits)


def _quantity(number: int) -> list[str]:
    if number > _LARGEST:
        return _one_by_one(str(number))
    if number < len(_SMALL):
        return [_SMALL[number]]
    if number < 100:
        tens, rest = divmod(number, 10)
        return [_TENS[tens], *([_SMALL[rest]] if rest else [])]
    size, name = next((size, name) for size, name in _SCALES if number >= size)
    count, rest = divmod(number, size)
    return [*_quantity(count), name, *(_quantity(rest) if rest else [])]


def _one_by_one(digits: str) -> list[str]:
    return [_SMALL[int(digit)] for digit in digits]


def _distance(left: list[str], right: list[str]) -> int:
    """Return the Levenshtein distance of two lists of words: the fewest insertions, deletions and substitutions."""
    row = list(range(len(right) + 1))
    for count, word in enumerate(left, 1):
        diagonal, row[0] = row[0], count
        for at, other in enumerate(right, 1):
            diagonal, row[at] = row[at], min(row[at] + 1, row[at - 1] + 1, diagonal + (word != other))
    return row[-1]
