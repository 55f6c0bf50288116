"""Tables of one spoken language, and the choice of the language for a voice."""

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
    """What the rules need to know about a language.

    Attributes:
        code: ISO 639-1 code.
        numerals: Number words; None if numbers are left to the voice.
        decimal: Decimal separator.
        thousands: Separators of groups of three digits, as one string.
        words: Spoken words of signs, by the sign: "&" is "and". See `ENGLISH` for all keys.
        notes: Sentences for text that cannot be read: "code", "long", and "script" with a place for the script's name.
        scripts: Names of foreign scripts, for the note.
        abbreviations: Spoken form of abbreviations, by the lower-case word without its last full stop. The full stop
            does not end a sentence.
        plain_abbreviations: The same for abbreviations that are written without a full stop, with exact case.
        currencies: Currencies by sign and by code.
        units: Units of measurement, by their exact abbreviation.
        magnitudes: Number words behind a number that belong to it ("million").
        short_magnitudes: Letters behind an amount of money that stand for a number word ("M").
        months: Names of the months, January first.
        month_numbers: Index of a month, 0 to 11, by its name or its abbreviation without a full stop, in lower case.
        one: The number 1 in front of a noun.
        clock: Returns the words of a time of day from the hour, the minute and whether am or pm follows.
        day: Returns the words of a day and a month from the day and the month's name.
        clock_words: Words after a time that are part of it ("Uhr"), in lower case.
        native: Whether the English rules for years, fractions, roman numerals and codes are used.
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
