"""Word error rate: how far a transcript is from the true text, spelling conventions aside."""

from __future__ import annotations

import re
from collections.abc import Sequence

_UNITS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
    *("ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
)
_TENS = ("", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_SPELLINGS = {"mr": "mister", "mrs": "missus", "dr": "doctor", "ok": "okay", "cannot": "can not"}
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_NOT_A_WORD = re.compile(r"[^a-z ]")


def normalize(text: str) -> list[str]:
    """The words of `text` as spoken: lower case, no punctuation, numbers in words ("10" is "ten", "29340" digits)."""
    spoken = _NUMBER.sub(lambda match: f" {_number_words(match[0])} ", text.lower())
    letters = _NOT_A_WORD.sub(" ", spoken.replace("'", "").replace("’", ""))
    return " ".join(_SPELLINGS.get(word, word) for word in letters.split()).split()


def word_errors(truth: str, heard: str) -> tuple[int, int]:
    """(substitutions + deletions + insertions, words of the truth), both normalised."""
    expected, found = normalize(truth), normalize(heard)
    return _edit_distance(expected, found), len(expected)


def word_error_rate(pairs: Sequence[tuple[str, str]]) -> float:
    """Errors over words of all (truth, heard) pairs together."""
    counts = [word_errors(truth, heard) for truth, heard in pairs]
    return sum(errors for errors, _ in counts) / sum(words for _, words in counts)


def _edit_distance(expected: list[str], found: list[str]) -> int:
    row = list(range(len(found) + 1))
    for i, want in enumerate(expected, start=1):
        diagonal, row[0] = row[0], i
        for j, have in enumerate(found, start=1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (want != have))
    return row[-1]


def _number_words(number: str) -> str:
    """How a caller says it: up to 99 and round hundreds as a number, longer ones digit by digit."""
    whole, _, fraction = number.partition(".")
    if fraction:
        return f"{_number_words(whole)} point {_digits(fraction)}"
    value = int(whole)
    if len(whole) == 3 and value % 100 == 0 and value:
        return f"{_UNITS[value // 100]} hundred"
    if len(whole) > 2 or (len(whole) == 2 and whole[0] == "0"):
        return _digits(whole)
    if value < len(_UNITS):
        return _UNITS[value]
    units = f" {_UNITS[value % 10]}" if value % 10 else ""
    return f"{_TENS[value // 10]}{units}"


def _digits(number: str) -> str:
    return " ".join(_UNITS[int(digit)] for digit in number)
