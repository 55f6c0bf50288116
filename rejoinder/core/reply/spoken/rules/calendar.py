"""Dates and times of day in figures."""

from __future__ import annotations

import re

from rejoinder.core.reply.spoken.languages.language import Language
from rejoinder.core.reply.spoken.rules.view import Reading, View
from rejoinder.core.reply.spoken.units import WordBoundary

HALF_DAYS = {"am": "AM", "a.m": "AM", "a.m.": "AM", "pm": "PM", "p.m": "PM", "p.m.": "PM"}
NOT_SENTENCES = frozenset(
    [
        "Monday",
        "Tuesday",
        "Wednesday",
        "Thursday",
        "Friday",
        "Saturday",
        "Sunday",
        "EST",
        "EDT",
        "PST",
        "PDT",
        "CST",
        "CDT",
        "MST",
        "ET",
        "PT",
        "CT",
        "GMT",
        "UTC",
        "CET",
        "I",
    ]
)
"""Capitalized words behind "p.m." that do not start a sentence."""

_TIME = re.compile(r"(\d{1,2})(?:[:h](\d{2}))?(?::\d{2})?(?:\s?([ap]\.?m\.?))?", re.IGNORECASE)


def date(view: View) -> Reading | None:
    """Read "2024-01-05", "1/5/2024" and "5.1.2024"."""
    language, core = view.language, view.token.core
    if not language.numerals or not language.months:
        return None
    if match := re.fullmatch(r"(\d{4})-(\d{1,2})-(\d{1,2})", core):
        year, month, day = (int(part) for part in match.groups())
    elif match := re.fullmatch(r"(\d{1,2})([/.])(\d{1,2})\2(\d{4}|\d{2})", core):
        first, second, year = int(match[1]), int(match[3]), int(match[4])
        american = language.code == "en" and match[2] == "/" and first <= 12
        month, day = (first, second) if american else (second, first)
        year += (2000 if year < 50 else 1900) if year < 100 else 0
    else:
        return None
    if not (1 <= month <= 12 and 1 <= day <= 31):
        return None
    comma = "," if language.code == "en" else ""
    return Reading((f"{language.day(day, language.months[month - 1])}{comma} {language.numerals.year(year)}",))


def time_of_day(view: View) -> Reading | None:
    """Read "3:30", "3:30 p.m.", "5pm", "15h30" and ranges such as "9am-5pm"."""
    language = view.language
    if not language.numerals:
        return None
    low, dash, high = (
        re.split(r"([-–—])", view.token.core, maxsplit=1)
        if re.search(r"\d[^-–—]*[-–—]\d", view.token.core)
        else (view.token.core, "", "")
    )
    if not (_is_time(language, low) or (dash and _is_time(language, high) and re.fullmatch(r"\d{1,2}", low))):
        return _hour_alone(view) if not dash else None
    if dash:
        ends = [_clock(language, part) for part in (low, high)]
        return Reading((f" {view.say('to')} ".join(ends),)) if all(ends) else None
    return _with_half_day(view, low)


def _is_time(language: Language, text: str) -> bool:
    match = _TIME.fullmatch(text)
    if not match or not (match[2] or match[3]):
        return False
    if "h" in text.lower().replace("am", "") and language.code != "fr":
        return False
    return int(match[1]) < 25 and int(match[2] or 0) < 60


def _clock(language: Language, text: str, *, follows: bool = False) -> str:
    """Return the words of a time in figures; "" if it is not one. `follows`: am or pm is the next word."""
    match = _TIME.fullmatch(text)
    if not match or int(match[1]) > 24:
        return ""
    half = HALF_DAYS.get((match[3] or "").lower(), "")
    bare = not match[2] and not half
    if bare and language.numerals:
        return language.numerals.cardinal(int(match[1]))
    return f"{language.clock(int(match[1]), int(match[2] or 0), bool(half) or follows)} {half}".strip()


def _with_half_day(view: View, text: str) -> Reading:
    """Read a time of day, with "p.m." or "Uhr" in the next word."""
    match = _TIME.fullmatch(text)
    if match and match[3]:
        return _ended(view, (_clock(view.language, text),), 0)
    following = view.following()
    if half := HALF_DAYS.get(following.core.lower()):
        return _ended(view, (_clock(view.language, text, follows=True), half), 1)
    swallowed = following.core.lower() in view.language.clock_words
    return Reading((_clock(view.language, text), *([""] if swallowed else [])))


def _hour_alone(view: View) -> Reading | None:
    """Read "3 p.m." and "15 Uhr"."""
    core, language = view.token.core, view.language
    if not re.fullmatch(r"\d{1,2}", core) or int(core) > 24 or view.token.pauses:
        return None
    following = view.following().core.lower()
    half = HALF_DAYS.get(following)
    if half and language.numerals and language.code == "en":
        return _ended(view, (language.numerals.cardinal(int(core)), half), 1)
    return Reading((language.clock(int(core), 0, False), "")) if following in language.clock_words else None


def _ended(view: View, spoken: tuple[str, ...], last: int) -> Reading:
    """Return a reading that ends with am or pm. Its full stop ends the sentence if a capitalized word follows."""
    token = view.word(last)
    if not token.closing.startswith(".") or "." not in token.core:
        return Reading(spoken)
    if len(token.closing) > 1:
        return Reading(spoken)
    following = view.word(last + 1)
    ends = following.core == "" or (following.core[:1].isupper() and following.core not in NOT_SENTENCES)
    return Reading(spoken, WordBoundary.SENTENCE if ends else WordBoundary.PLAIN, stop=ends)
