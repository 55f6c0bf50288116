"""Rules for text that is spelled or spoken in groups: telephone numbers, addresses, file names and codes."""

from __future__ import annotations

import re

from rejoinder.core.reply.spoken.languages.language import Language
from rejoinder.core.reply.spoken.rules.numbers_in_context import grouped_digits
from rejoinder.core.reply.spoken.rules.view import Reading, View

DOMAINS = frozenset(
    [
        "com",
        "org",
        "net",
        "edu",
        "gov",
        "mil",
        "io",
        "ai",
        "co",
        "uk",
        "de",
        "fr",
        "es",
        "eu",
        "it",
        "nl",
        "ch",
        "at",
        "be",
        "ca",
        "us",
        "au",
        "nz",
        "jp",
        "cn",
        "in",
        "br",
        "mx",
        "info",
        "biz",
        "app",
        "dev",
        "me",
        "tv",
        "tech",
        "online",
        "site",
        "store",
        "shop",
        "blog",
        "cloud",
        "ly",
        "gg",
        "xyz",
    ]
)
FILES = frozenset(
    [
        "pdf",
        "py",
        "js",
        "ts",
        "txt",
        "md",
        "csv",
        "json",
        "html",
        "htm",
        "css",
        "jpg",
        "jpeg",
        "png",
        "gif",
        "mp3",
        "mp4",
        "wav",
        "zip",
        "doc",
        "docx",
        "xls",
        "xlsx",
        "exe",
        "sh",
    ]
)
SAID = frozenset(
    [
        "com",
        "org",
        "net",
        "info",
        "biz",
        "app",
        "dev",
        "tech",
        "online",
        "site",
        "store",
        "shop",
        "blog",
        "cloud",
        "zip",
        "doc",
        "css",
        "wav",
    ]
)
"""Top-level domains and file endings that are spoken as words; others are spelled."""

MAX_PATH = 30
"""Maximum characters of the path of an address that is read; a longer one is left out."""

_GROUP = re.compile(r"\+?\(?\d{1,4}\)?(?:[-./]\d{2,4})*")
_PHONE = re.compile(
    r"\+?\d{0,3}[-. ]?\(?\d{3}\)?[-. ]?\d{3}[-. ]\d{4}|\d{3}[-.]\d{4}|1-\d{3}-\d{3}-\d{4}|\+\d{7,14}|\d{3}-\d{2}-\d{4}"
    r"|\d{5}-\d{4}|\d{4}(?:-\d{4}){2,3}"
)
_EMAIL = re.compile(r"(?:mailto:)?([\w.+%-]+)@([\w-]+(?:\.[\w-]+)+)")
_URL = re.compile(r"(?:(?:https?|ftp)://)?(?:www\.)?([\w-]+(?:\.[\w-]+)+)(:\d+)?([/?#]\S*)?", re.IGNORECASE)
_FILE = re.compile(r"([\w-]+(?:\.[\w-]+)*)\.(\w{2,4})")
_CODE = re.compile(r"(?=\w*\d)(?=\w*[^\W\d_])\w+(?:-\w+)*|[^\W\d_]+-\d+")


def phone(view: View) -> Reading | None:
    """Return the spoken form of a telephone, card or social security number; None for other words.

    The digits are spoken one by one, with a pause between the groups.
    """
    numerals = view.language.numerals
    if not numerals:
        return None
    if _PHONE.fullmatch(view.token.core):
        return Reading((_digit_groups(view, view.token.core),))
    if not _GROUP.fullmatch(view.token.core) or (view.token.opening and not view.token.closing.startswith(")")):
        return None
    groups = _groups(view)
    digits = [re.sub(r"\D", "", group) for group in groups]
    if len(groups) < 2 or sum(map(len, digits)) < 7 or not _plausible(view, groups, digits):
        return None
    spoken = [_digit_groups(view, group) for group in groups]
    return Reading((*(f"{group}," for group in spoken[:-1]), spoken[-1]))


def _groups(view: View) -> list[str]:
    """Return the written words that are groups of digits, from the next word up to a pause or another word."""
    groups: list[str] = []
    while _GROUP.fullmatch(view.word(len(groups)).core):
        token = view.word(len(groups))
        groups.append(token.core)
        if token.pauses and token.closing != ")":
            break
    return groups


def _plausible(view: View, groups: list[str], digits: list[str]) -> bool:
    """Return True if groups of digits look like one long number, not like several years or amounts.

    Args:
        view: The words that are read next.
        groups: The groups as they are written, with signs such as "+".
        digits: The digits of each group.
    """
    if groups[0].startswith("+") or view.token.closing == ")" or any(group[0] == "0" for group in digits):
        return True
    if view.language.code == "fr" and all(len(group) == 3 for group in digits[1:]):
        return False
    return (len(digits) >= 2 and len(digits[-1]) == 4 and len(digits[-2]) == 3) or all(
        len(group) == 4 for group in digits
    )


def _digit_groups(view: View, text: str) -> str:
    numerals = view.language.numerals
    assert numerals
    parts = re.findall(r"\d+", text)
    if len(parts) == 1 and len(parts[0]) > 6:
        return (
            f"{view.say('+')} {grouped_digits(numerals, parts[0])}".strip()
            if text[0] == "+"
            else grouped_digits(numerals, parts[0])
        )
    spoken = ", ".join(numerals.digits(part) for part in parts)
    return f"{view.say('+')} {spoken}" if text[0] == "+" else spoken


def address(view: View) -> Reading | None:
    """Return the spoken form of a web or e-mail address, file name, handle or hashtag; None for other words."""
    core, language = view.token.core, view.language
    if not language.words:
        return None
    if match := _EMAIL.fullmatch(core):
        return Reading((f"{_spelled(language, match[1])} {view.say('@')} {_host(language, match[2])}",))
    if (match := _URL.fullmatch(core)) and _is_address(core, match[1]):
        return Reading((_host(language, match[1]) + _path(language, match[3] or ""),))
    if (match := _FILE.fullmatch(core)) and match[2].lower() in FILES:
        return Reading((f"{_spelled(language, match[1])} {view.say('.')} {_ending(match[2])}",))
    if match := re.fullmatch(r"([@#])([A-Za-z_]\w*)", core):
        sign = "hashtag" if match[1] == "#" else view.say("@")
        return Reading((f"{sign} {_spelled(language, match[2])}",))
    if language.numerals and (match := re.fullmatch(r"#(\d+)", core)):
        return Reading((f"{view.say('number')} {language.numerals.decimal(match[1], '')}",))
    if re.fullmatch(r"[~.]?(?:/[\w.-]+)+/?", core) and core.count("/") > 1:
        return Reading((_path(language, core.lstrip("~.")).strip(),))
    return None


def _is_address(core: str, host: str) -> bool:
    if "://" in core or core.lower().startswith("www."):
        return True
    return host.rsplit(".", 1)[1].lower() in DOMAINS and not host.replace(".", "").isupper() and "." not in host[:2]


def _host(language: Language, host: str) -> str:
    *names, ending = host.removeprefix("www.").split(".")
    dot = f" {language.words['.']} "
    return dot.join((*(_spelled(language, name) for name in names), _ending(ending)))


def _ending(text: str) -> str:
    return text.lower() if text.lower() in SAID or len(text) > 4 else spell(text)


def spell(letters: str) -> str:
    """Return capital letters with hyphens between them ("P-D-F"), which makes the voice spell them.

    With spaces instead, the voice would read a letter A as the article "a".
    """
    return "-".join(letters.upper())


def _path(language: Language, path: str) -> str:
    path = re.split(r"[?#]", path)[0].rstrip("/")
    if not path or len(path) > MAX_PATH:
        return ""
    slash = f" {language.words['/']} "
    return slash + slash.join(_spelled(language, part) for part in path.strip("/").split("/"))


def _spelled(language: Language, text: str) -> str:
    """Return the spoken words of a part of an address.

    Words stay as they are, more than two digits are spoken one by one, and signs are spoken by their names.
    """
    spoken: list[str] = []
    for part in re.findall(r"[^\W\d_]+|\d+|[^\w\s]|_", text):
        if part.isdecimal() and language.numerals:
            spoken.append(language.numerals.digits(part) if len(part) > 2 else language.numerals.decimal(part, ""))
        elif part.isalpha():
            spoken.append(spell(part) if part.isupper() and len(part) < 5 else part)
        else:
            spoken.append(language.words.get(part, ""))
    return " ".join(filter(None, spoken))


def code(view: View) -> Reading | None:
    """Return the spoken form of a code ("GPT-4", "B12", "192.168.0.1", version "3.11.2"); None for other words."""
    core, language = view.token.core, view.language
    numerals = language.numerals
    if not numerals:
        return None
    if re.fullmatch(r"v?\d+(?:\.\d+){2,}", core):
        numbers = core.lstrip("v").split(".")
        address_like = len(numbers) == 4
        parts = (numerals.digits(part) if address_like else numerals.decimal(part, "") for part in numbers)
        joint = language.words.get(".", "") if address_like else numerals.point
        named = core[0] == "v" and view.previous().core.lower() != "version"
        return Reading((("version " if named else "") + f" {joint} ".join(parts),))
    core = core.removeprefix("#")
    if not _CODE.fullmatch(core) or core.isalpha():
        return None
    spoken: list[str] = []
    for part in re.findall(r"[^\W\d_]+|\d+", core):
        if part.isdecimal():
            spoken.append(numerals.digits(part) if len(part) > 2 and part != "100" else numerals.decimal(part, ""))
        else:
            spoken.append(spell(part) if part.isupper() and len(part) < 4 else part)
    return Reading((" ".join(spoken),))
