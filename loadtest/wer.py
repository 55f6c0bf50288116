"""Word error rate: how far a transcript is from what was said.

Both texts are brought to one spelling first, so that a recognizer is not charged for style: lower case, no
punctuation, numbers in words. Contractions stay as they are spoken ("it's" is one word and is not "it is").
"""

from __future__ import annotations

import re

_SMALL = [
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    *("eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
]
_TENS = ["zero", "ten", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_SCALES = ((1_000_000, "million"), (1_000, "thousand"), (100, "hundred"))
# Beyond this, digits are more likely an identifier than a quantity and are read one by one.
_LARGEST = 999_999_999

_APOSTROPHES = str.maketrans({"’": "'", "‘": "'", "ʼ": "'"})
_GROUPED = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_DECIMAL = re.compile(r"(?<=\d)\.(?=\d)")
_WORD = re.compile(r"\d+|[^\W\d_]+(?:'[^\W\d_]+)*")


def words(text: str) -> list[str]:
    """The words of `text` in the one spelling."""
    text = text.lower().translate(_APOSTROPHES).replace("%", " percent ").replace("&", " and ")
    text = _DECIMAL.sub(" point ", _GROUPED.sub("", text))
    found: list[str] = []
    for word in _WORD.findall(text):
        found += _spoken(word) if word.isdecimal() else [word]
    return found


def word_errors(expected: str, heard: str) -> int:
    """The fewest words to substitute, insert or delete to make `expected` out of `heard`."""
    return _distance(words(expected), words(heard))


def word_error_rate(expected: str, heard: str) -> float:
    """Errors per expected word: 0 is perfect, above 1 is possible; of nothing expected, 0 or infinity."""
    errors, length = word_errors(expected, heard), len(words(expected))
    if not length:
        return float("inf") if errors else 0.0
    return errors / length


def _spoken(digits: str) -> list[str]:
    if int(digits) > _LARGEST or (len(digits) > 1 and digits.startswith("0")):
        return [_SMALL[int(digit)] for digit in digits]
    return _cardinal(int(digits))


def _cardinal(number: int) -> list[str]:
    if number < 20:
        return [_SMALL[number]]
    if number < 100:
        tens, rest = divmod(number, 10)
        return [_TENS[tens], *([_SMALL[rest]] if rest else [])]
    size, name = next((size, name) for size, name in _SCALES if number >= size)
    count, rest = divmod(number, size)
    return [*_cardinal(count), name, *(_cardinal(rest) if rest else [])]


def _distance(left: list[str], right: list[str]) -> int:
    """Levenshtein's, one row of its table at a time."""
    row = list(range(len(right) + 1))
    for count, word in enumerate(left, 1):
        diagonals = [above + (word != other) for above, other in zip(row, right, strict=False)]
        fresh = [count]
        for diagonal, above in zip(diagonals, row[1:], strict=True):
            fresh.append(min(diagonal, above + 1, fresh[-1] + 1))
        row = fresh
    return row[-1]
