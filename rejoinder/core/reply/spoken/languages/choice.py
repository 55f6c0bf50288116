"""Choice of the language of spoken text for a voice."""

from __future__ import annotations

from functools import lru_cache

from rejoinder.core.reply.spoken.languages.english import ENGLISH
from rejoinder.core.reply.spoken.languages.french import FRENCH
from rejoinder.core.reply.spoken.languages.german import GERMAN
from rejoinder.core.reply.spoken.languages.language import Language
from rejoinder.core.reply.spoken.languages.spanish import SPANISH

LANGUAGES = {language.code: language for language in (ENGLISH, GERMAN, SPANISH, FRENCH)}


@lru_cache(maxsize=32)
def language_of(code: str) -> Language:
    """Return the tables of a language by its ISO 639-1 code; a region ("en-GB") is ignored.

    A language without a table here gets empty tables: markup, hidden text and emoji are still removed, but numbers stay
    digits, and the voice reads them in its own language.
    """
    short = code.lower().replace("_", "-").split("-")[0]
    return LANGUAGES.get(short) or Language(code=short)
