"""Number words of one language, from the library num2words (LGPL-2.1, used unchanged as a dependency)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from num2words import num2words

MAX_VALUE = 10**15
"""Numbers of this size and larger are read digit by digit: nobody says "one quintillion" for an account number."""


@lru_cache(maxsize=4096)
def _words(value: int, code: str, form: str) -> str:
    words: str = num2words(value, lang=code, to=form)
    if code == "en":  # American style: no comma and no "and" inside a number
        words = words.replace(",", "").replace(" and ", " ")
    return words


@dataclass(frozen=True, slots=True)
class Numerals:
    """Converter of numbers to words of one language.

    Attributes:
        code: ISO 639-1 code that num2words knows.
        point: The word for the decimal separator.
    """

    code: str
    point: str

    def cardinal(self, value: int) -> str:
        """Return the words of an integer, such as "forty-two"."""
        return self.digits(str(value)) if abs(value) >= MAX_VALUE else _words(value, self.code, "cardinal")

    def ordinal(self, value: int) -> str:
        """Return the words of an ordinal number, such as "forty-second"."""
        return _words(value, self.code, "ordinal") if value < MAX_VALUE else self.digits(str(value))

    def year(self, value: int) -> str:
        """Return the words of a year, such as "nineteen eighty-four"."""
        return _words(value, self.code, "year")

    def digits(self, text: str) -> str:
        """Return the words of the digits in `text`, one by one. Other characters are ignored."""
        return " ".join(_words(int(char), self.code, "cardinal") for char in text if char.isdecimal())

    def decimal(self, whole: str, fraction: str) -> str:
        """Return the words of a decimal number from the digits before and after its decimal separator.

        Each part may be empty. A whole part with leading zeros ("007") is spoken digit by digit.
        """
        if len(whole) > 1 and whole[0] == "0" and not fraction:
            return self.digits(whole)
        words = self.cardinal(int(whole or "0"))
        return f"{words} {self.point} {self.digits(fraction)}" if fraction else words
