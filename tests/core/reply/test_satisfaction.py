"""Tests of the figures from which a caller's satisfaction is guessed: repeated turns and hang-ups."""

from __future__ import annotations

import pytest

from rejoinder.core.reply.satisfaction import SOON_S, HangUp, hang_up, repeats


@pytest.mark.parametrize(
    ("later", "repeated"),
    [
        ("When do you open on Sunday?", True),
        ("I said, when do you open on Sunday?", True),
        ("When do you open on Sunday, again?", True),
        ("Sorry, my question was: when do you open on Sundays?", True),
        ("When do you open on Monday?", False),
        ("When do you close on Sunday?", False),
        ("And when do you open on Sunday and on Monday?", False),
        ("Thank you.", False),
        ("", False),
    ],
)
def test_a_turn_repeats_the_one_before_if_it_has_the_same_content(later: str, repeated: bool) -> None:
    """Words that mark a repetition do not count, and one other content word makes another question."""
    assert repeats("When do you open on Sunday?", later) is repeated


@pytest.mark.parametrize("turn", ["Yes.", "Again.", "I said no.", ""])
def test_a_turn_with_fewer_than_two_content_words_repeats_nothing(turn: str) -> None:
    """Answers such as "yes" are often said twice, and markers alone ask nothing."""
    assert not repeats(turn, turn)


@pytest.mark.parametrize(
    ("speaking", "ended_at", "expected"),
    [
        (True, None, HangUp.DURING_REPLY),
        (True, 99.0, HangUp.DURING_REPLY),
        (False, None, HangUp.BEFORE_REPLY),
        (False, 100.0 - SOON_S, HangUp.SOON),
        (False, 99.9 - SOON_S, HangUp.LATER),
    ],
)
def test_a_hang_up_is_judged_by_the_newest_reply(speaking: bool, ended_at: float | None, expected: HangUp) -> None:
    """A reply that is being heard comes first, and the limit of 5 s is included."""
    assert hang_up(100.0, speaking=speaking, reply_ended_at=ended_at) is expected
