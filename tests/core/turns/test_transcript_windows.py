"""Tests of joining the transcripts of two windows of long speech: words around the cut are kept once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoinder.core.turns.transcript_windows import OVERLAP_WORDS, merge


@pytest.mark.parametrize(
    ("left", "right", "joined"),
    [
        ("I waited for half an hour", "half an hour and then", "I waited for half an hour and then"),
        ("I waited for half an hou.", "alf an hour and then", "I waited for half an hou alf an hour and then"),
        ("the chairs was broken and that the table was.", "that the table had a scratch", None),
        ("On Friday, and a woman.", "Friday and a woman on the phone said", "On Friday, and a woman on the phone said"),
        ("and then the man", "gunman told me", "and then the man gunman told me"),
        ("we met at the station", "Station and then left", "we met at the Station and then left"),
        ("", "hello", "hello"),
        ("hello", "", "hello"),
        ("", "", ""),
        ("to bring me a new chair.", "and when you come", "to bring me a new chair and when you come"),
        ("to bring me a new chair.", "When do you come", "to bring me a new chair. When do you come"),
    ],
)
def test_windows_are_joined(left: str, right: str, joined: str | None) -> None:
    """Two transcripts are joined at the words that both have.

    Words between them and the cut are dropped, as a cut within a word garbles them. `joined` None stands for the text
    below.
    """
    expected = "the chairs was broken and that the table had a scratch" if joined is None else joined
    assert merge(left, right, overlaps=True) == expected


def test_windows_without_an_overlap_keep_all_words() -> None:
    """If the windows share no audio, equal words on both sides of the cut were spoken twice, and both are kept."""
    assert merge("It is five five five", "five five", overlaps=False) == "It is five five five five five"
    assert merge("the table.", "The table is broken", overlaps=False) == "the table. The table is broken"


def test_a_repeated_word_is_not_swallowed() -> None:
    """If both windows have one word many times, the result lacks at most OVERLAP_WORDS of them."""
    twelve = " ".join(["five"] * 12)
    assert len(merge(twelve, twelve, overlaps=True).split()) >= 24 - OVERLAP_WORDS


_WORD = st.integers(1, 12).map("word{}".format)


@given(st.permutations([f"word{number}" for number in range(40)]), st.integers(1, OVERLAP_WORDS), st.integers(10, 30))
def test_a_text_cut_with_an_overlap_is_restored(words: list[str], overlap: int, cut: int) -> None:
    """A text of distinct words, cut into two windows that share up to OVERLAP_WORDS words, is restored."""
    left, right = words[:cut], words[cut - overlap :]
    assert merge(" ".join(left), " ".join(right), overlaps=True) == " ".join(words)


@given(st.lists(_WORD), st.lists(_WORD), st.booleans())
def test_no_word_is_invented_and_few_are_dropped(left: list[str], right: list[str], overlaps: bool) -> None:
    """The result has only words of the two transcripts, and lacks at most twice OVERLAP_WORDS of them."""
    joined = merge(" ".join(left), " ".join(right), overlaps=overlaps).split()
    assert len(left) + len(right) - 2 * OVERLAP_WORDS <= len(joined) <= len(left) + len(right)
    assert set(joined) <= set(left) | set(right)
