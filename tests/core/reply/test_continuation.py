"""Tests of continuing an answer that broke off with the text of a second answer."""

from __future__ import annotations

import pytest

from rejoinder.core.reply.continuation import Continuation, ends_sentence

PREFIX = "Hello. On Monday we open at"


def result(prefix: str, text: str, *, asked: bool, size: int) -> tuple[str, int]:
    """Return (text to add, characters kept of the first answer) for a second answer in pieces of `size` characters.

    Args:
        prefix: The first answer, as far as it was received.
        text: The second answer.
        asked: True if the server was asked to send only the continuation.
        size: Characters in each piece of the second answer.
    """
    continuation = Continuation(prefix, asked=asked)
    pieces = [text[at : at + size] for at in range(0, len(text), size)]
    new = "".join(continuation.push(piece) for piece in pieces) + continuation.end()
    return new, continuation.kept


@pytest.mark.parametrize("size", [1, 3, 100])
@pytest.mark.parametrize(
    ("text", "new", "kept"),
    [
        (f"{PREFIX} nine.", " nine.", len(PREFIX)),
        ("Hello. Our shop opens at nine.", "Our shop opens at nine.", 7),
        ("Our shop opens at nine.", "Our shop opens at nine.", 0),
        ("Hello. On Monday we close.", "On Monday we close.", 7),
        ("Hello.", "", len(PREFIX)),
        ("", "", len(PREFIX)),
    ],
)
def test_an_answer_from_the_beginning(text: str, new: str, kept: int, size: int) -> None:
    """After a broken stream the server answers again from the beginning. Text that repeats the first answer is dropped.

    If the second answer differs, the last sentence that both answers have ends the kept part, and the new text follows.
    """
    assert result(PREFIX, text, asked=False, size=size) == (new, kept)


@pytest.mark.parametrize("prefix", ["It costs 3.5 euros", "I saw Dr. Jones"])
def test_a_full_stop_within_a_sentence_is_no_place_to_start(prefix: str) -> None:
    """The point of a decimal number or an abbreviation ends no sentence.

    If the second answer differs after such a point, it replaces the whole first answer.
    """
    other = prefix.replace("3.5", "3.7").replace("Jones", "Smith")
    assert result(prefix, other, asked=False, size=1) == (other, 0)


@pytest.mark.parametrize("size", [1, 100])
@pytest.mark.parametrize(
    ("text", "new", "kept"),
    [
        (" nine.", " nine.", len(PREFIX)),
        (", well, nine.", ", well, nine.", len(PREFIX)),
        ("Our shop opens at nine.", "Our shop opens at nine.", 7),
        (f"{PREFIX} nine.", " nine.", len(PREFIX)),
        (" On Mondays at nine.", " On Mondays at nine.", len(PREFIX)),
    ],
)
def test_a_server_that_was_asked_to_continue(text: str, new: str, kept: int, size: int) -> None:
    """If the server was asked to continue, text that continues the first answer is added unchanged.

    Text that repeats the first answer loses the repeated part. Text that begins with a new sentence replaces the
    unfinished sentence of the first answer.
    """
    assert result(PREFIX, text, asked=True, size=size) == (new, kept)


@pytest.mark.parametrize(("asked", "text"), [(False, PREFIX), (True, ""), (True, PREFIX)])
def test_a_second_answer_that_ends_at_the_same_place(asked: bool, text: str) -> None:
    """If the second answer ends where the first one did, `push` adds no text and `ends_alike` is True."""
    continuation = Continuation(PREFIX, asked=asked)
    assert not continuation.push(text)
    assert continuation.ends_alike
    assert not Continuation(PREFIX, asked=False).ends_alike


@pytest.mark.parametrize(
    ("text", "ends"),
    [("Yes.", True), ('"Yes!" ', True), ("Yes", False), ("", False), ("3.5", False), ("\u4f60\u597d\u3002", True)],
)
def test_the_end_of_a_sentence(text: str, ends: bool) -> None:
    """A text ends a sentence if its last sign is sentence punctuation. Quotes and white space may follow."""
    assert ends_sentence(text) is ends
