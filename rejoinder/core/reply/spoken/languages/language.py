"""Type of the tables of one spoken language (`choice.py` chooses the language for a voice)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from rejoinder.core.reply.spoken.languages.numerals import Numerals

Forms = tuple[str, str]
"""Singular and plural of a noun."""


@dataclass(frozen=True, slots=True)
class Currency:
    """Names of a currency: the main unit and its hundredth, each with singular and plural."""

    major: Forms
    minor: Forms | None = None


@dataclass(frozen=True, slots=True)
class Language:
    """Tables of one language, which the rules of spoken text use.

    Attributes:
        code: ISO 639-1 code.
        numerals: Number words; None if numbers are left to the voice.
        decimal: Decimal separator.
        thousands: Separators of groups of three digits, as one string.
        words: Spoken words of signs, by the sign: "&" is "and". See `ENGLISH` for all keys.
        notes: Sentences that are spoken in place of text that cannot be read. The keys are "code" (a block of code),
            "long" (an overlong word) and "script" (a foreign script; the sentence has a placeholder for its name).
        scripts: Names of foreign scripts in this language, for the note "script".
        abbreviations: Spoken form of abbreviations, by the lower-case word without its last full stop. The full stop
            does not end a sentence.
        plain_abbreviations: The same for abbreviations that are written without a full stop, with exact case.
        currencies: Currencies by sign and by code.
        units: Units of measurement, by their exact abbreviation.
        magnitudes: Number words after a number that belong to it ("million").
        short_magnitudes: Number words by the letter after an amount of money that stands for them ("M": "million").
        months: Names of the months, January first.
        month_numbers: Index of a month, 0 to 11, by its name or its abbreviation without a full stop, in lower case.
        one: The word for the number 1 before a noun (English "one", French "un").
        clock: Function from the hour, the minute and whether am or pm follows to the words of a time of day.
        day: Function from the day of the month (1 to 31) and the month's name to the words of a date.
        clock_words: Words after a time that are part of it ("Uhr"), in lower case.
        native: Whether the rules for years, fractions, roman numerals and codes, which know English only, are used.
    """

    code: str
    numerals: Numerals | None = None
    decimal: str = "."
    thousands: str = ","
    words: Mapping[str, str] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)
    scripts: Mapping[str, str] = field(default_factory=dict)
    abbreviations: Mapping[str, str] = field(default_factory=dict)
    plain_abbreviations: Mapping[str, str] = field(default_factory=dict)
    currencies: Mapping[str, Currency] = field(default_factory=dict)
    units: Mapping[str, Forms] = field(default_factory=dict)
    magnitudes: frozenset[str] = frozenset()
    short_magnitudes: Mapping[str, str] = field(default_factory=dict)
    months: tuple[str, ...] = ()
    month_numbers: Mapping[str, int] = field(default_factory=dict)
    one: str = ""
    clock: Callable[[int, int, bool], str] = lambda hour, minute, _: f"{hour} {minute}"
    day: Callable[[int, str], str] = lambda day, month: f"{day} {month}"
    clock_words: frozenset[str] = frozenset()
    native: bool = False

    def month(self, word: str) -> int | None:
        """Return the index, 0 to 11, of the month that a word names in full or abbreviated; None for other words.

        English writes months with a capital letter: "may" and "march" are verbs.
        """
        if self.code == "en" and not word[:1].isupper():
            return None
        return self.month_numbers.get(word.lower())


def month_numbers(months: tuple[str, ...], extra: Mapping[str, int] | None = None) -> dict[str, int]:
    """Return the index, 0 to 11, of each month by its name and its first three letters, in lower case."""
    names = {name.lower(): number for number, name in enumerate(months)}
    return {name[:3]: number for name, number in reversed(names.items())} | names | dict(extra or {})
