"""Kind of an utterance by its words: a number, a spelled name, an e-mail address, a list or plain speech.

People pause inside a number for as long as they pause between sentences, and grammar does not show whether a number is
complete. The count of digits does: a telephone number has ten. The expected count follows from the caller's own words
("my phone number is 555") or from the assistant's question ("What is your zip code?"). The rules are English. In other
languages every utterance is PLAIN.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum


class UtteranceKind(Enum):
    """Kind of the utterance's end.

    PLAIN: ordinary speech. DIGITS_OPEN: a number with fewer digits than expected. DIGITS_DONE: a number with the
    expected digits. DIGITS: a number whose length is not known. SPELLING: single letters. ADDRESS_OPEN: an e-mail
    address without its domain. ADDRESS_DONE: an e-mail address with its domain. LIST: items without "and" before the
    last one.
    """

    PLAIN = "plain"
    DIGITS_OPEN = "digits_open"
    DIGITS_DONE = "digits_done"
    DIGITS = "digits"
    SPELLING = "spelling"
    ADDRESS_OPEN = "address_open"
    ADDRESS_DONE = "address_done"
    LIST = "list"

    @property
    def unfinished(self) -> bool:
        """True if more must follow: digits are missing, or the domain of an e-mail address is."""
        return self in (UtteranceKind.DIGITS_OPEN, UtteranceKind.ADDRESS_OPEN)


@dataclass(frozen=True, slots=True)
class _NumberKind:
    """A number that people say digit by digit: the words that announce it, and its possible lengths in digits."""

    words: re.Pattern[str]
    lengths: tuple[int, ...]


def _number(words: str, *lengths: int) -> _NumberKind:
    return _NumberKind(re.compile(rf"\b(?:{words})\b"), lengths)


# Numbers by the words that announce them, with their possible lengths in digits. The first entry whose words occur in
# the text applies. Lengths are those of the United States; a telephone number may have a country code. An entry without
# a length is a number whose length is not known.
_NUMBERS = (
    _number(r"last four(?: digits)?", 4),
    _number(r"social security(?: number)?", 9),
    _number(r"zip(?: code)?", 5, 9),
    _number(r"(?:credit |debit )?card number", 15, 16),
    _number(r"(?:phone|telephone|mobile|cell|callback|contact|call(?: me)? back)(?: phone)?(?: number)?", 10, 11),
    _number(r"(?:reach|call|text) (?:me|you) (?:at|on)", 10, 11),
    _number(r"pin(?: code| number)?", 4, 6),
    _number(
        r"(?:account|order|reference|confirmation|tracking|booking|member(?:ship)?|customer|policy) (?:number|code)"
    ),
    _number(r"(?:serial|routing|case|ticket|invoice|extension) (?:number|code)|(?:security|access|verification) code"),
    _number(r"number is|code is"),
)
_DIGIT_WORDS = {
    **dict.fromkeys(("zero", "oh", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"), 1),
    **dict.fromkeys(("o", "nought", "niner"), 1),
}
_TENS = frozenset({"twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"})
_TEENS = frozenset(
    {"ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"}
)
_REPEATS = {"double": 2, "triple": 3}
# Words that may stand between the digits of a spoken number, so they do not end it.
_INSIDE = frozenset({"and", "area", "code", "plus", "dash", "hyphen", "then", "um", "uh", "er"})
_LOOSE_RUN = 3
"""Number of digits from which an utterance counts as a number although nothing announced one. "At 7 30" does not."""
_MIN_LETTERS = 2
_LONGEST_ITEM = 3
_MIN_COMMAS = 2

# Times and percentages ("at 7 30", "50%"). Their digits do not count as a number that people say digit by digit.
_TIME = re.compile(
    r"\b(?:at|by|from|until|till|around|before|after) [\w: ]{1,16}$|\b\d{1,2}[: ]\d{2}\W*$|\d%$|\b[ap]\.?m\.?$"
)
_ANNOUNCED = re.compile(r"\bis[\s,.:\u2026-]*$")
"""End of an utterance that announces a number and has none of its digits yet."""
_EMAIL = re.compile(r"\be[- ]?mail\b|@")
_DOMAIN = re.compile(r"(?:\bdot|[a-z0-9]\.)\s*(?:com|org|net|edu|gov|info|io|co|uk|us|de|eu|ai|app|dev)[.!?\"']*$")
_LETTER_AS_WORD = re.compile(r"\b([a-z]) (?:as in|for|like) [a-z]+$")
_TOKEN = re.compile(r"[a-z]+(?:'[a-z]+)?|\d+")


def utterance_kind(text: str, asked: str = "", language: str = "en") -> UtteranceKind:
    """Return the kind of the utterance's end.

    Args:
        text: The transcript so far.
        asked: The assistant's words before the utterance. Only the last question in them counts.
        language: Language code. In a language other than "en", the kind is PLAIN.
    """
    if language != "en":
        return UtteranceKind.PLAIN
    said, question = text.lower(), last_question(asked).lower()
    tokens = _TOKEN.findall(said)
    if _is_address(said, question):
        return UtteranceKind.ADDRESS_DONE if _DOMAIN.search(said.strip()) else UtteranceKind.ADDRESS_OPEN
    if _is_spelled(said, tokens):
        return UtteranceKind.SPELLING
    if (number := _number_kind(said, tokens, question)) is not None:
        return number
    return UtteranceKind.LIST if _is_open_list(said) else UtteranceKind.PLAIN


def last_question(asked: str) -> str:
    """Return the last sentence of the assistant's words that ends with a question mark; "" if there is none."""
    end = asked.rfind("?")
    if end < 0:
        return ""
    return re.split(r"[.!?]\s+", asked[:end])[-1]


def trailing_digits(tokens: list[str]) -> int:
    """Return the number of digits at the end of an utterance. Words such as "and" and "dash" may stand between them."""
    count, at = 0, len(tokens) - 1
    counted_at = len(tokens)
    while at >= 0:
        token = tokens[at]
        if (digits := _digits(token)) == 0:
            if token in _INSIDE or token in _REPEATS:
                at -= 1
                continue
            break
        before = tokens[at - 1] if at else ""
        if before in _TENS and digits == 1:  # "twenty five" has two digits, and "twenty" counts as two
            digits = 0
        count += digits * _REPEATS.get(before, 1)
        counted_at = at
        at -= 1
    # Without any digit, words such as "and" at the end are not a number.
    return count if counted_at < len(tokens) else 0


def _digits(token: str) -> int:
    """Return the number of digits that one token stands for; 0 for any other word."""
    if token.isdigit():
        return len(token)
    if token in _TENS or token in _TEENS:
        return 2
    return _DIGIT_WORDS.get(token, 0)


def _number_kind(said: str, tokens: list[str], question: str) -> UtteranceKind | None:
    digits = trailing_digits(tokens)
    announced = next((kind for kind in _NUMBERS if kind.words.search(said)), None)
    answers = announced is None
    number = announced or next((kind for kind in _NUMBERS if kind.words.search(question)), None)
    if not digits:
        awaited = announced is not None and announced.lengths and _ANNOUNCED.search(said)
        return UtteranceKind.DIGITS_OPEN if awaited else None
    if number is None:
        return UtteranceKind.DIGITS if digits >= _LOOSE_RUN and not _TIME.search(said) else None
    if answers and len(tokens) > digits + 4 and digits < _LOOSE_RUN:
        return None  # A long sentence that ends with a small number does not answer the question for a number.
    if not number.lengths:
        return UtteranceKind.DIGITS
    return UtteranceKind.DIGITS_OPEN if digits < min(number.lengths) else UtteranceKind.DIGITS_DONE


def _is_spelled(said: str, tokens: list[str]) -> bool:
    if _LETTER_AS_WORD.search(said.strip(" .,?!")):
        return True
    letters = 0
    for token in reversed(tokens):
        if len(token) != 1 or token.isdigit():
            break
        letters += 1
    return letters >= _MIN_LETTERS


def _is_address(said: str, question: str) -> bool:
    if "@" in said or _EMAIL.search(said):
        return _has_content_after_email(said)
    return bool(_EMAIL.search(question)) and bool(re.search(r"\bat\b|\bdot\b|[a-z0-9]\.[a-z]", said))


def _has_content_after_email(said: str) -> bool:
    """Return True if lower-case speech contains a part of an e-mail address.

    Signs of an address are "my e-mail is", the character "@", and the word "at" with "dot" after it.
    """
    return bool(re.search(r"@|\be[- ]?mail(?: address)? (?:is|it's|its)\b|\bat\b.*\bdot\b", said))


def _is_open_list(said: str) -> bool:
    """Return True if lower-case speech is a list that may go on.

    Such speech has at least three items with commas between them. The last two items have at most _LONGEST_ITEM
    words each, and the last one does not begin with "and", "or", "please" or "thanks".
    """
    items = [item.strip(" .!?") for item in said.split(",")]
    if len(items) <= _MIN_COMMAS:
        return False
    newest = [item.split() for item in items[-_MIN_COMMAS:]]
    short = all(len(words) <= _LONGEST_ITEM for words in newest)
    return short and not any(words and words[0] in ("and", "or", "please", "thanks") for words in newest[-1:])
