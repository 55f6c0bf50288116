"""Tests of the draft budget, which limits how many drafts (speculative replies) may start."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rejoinder.core.reply.draft_budget import DraftBudget, DraftDeclined
from rejoinder.core.settings.settings import SpeculationSettings


def test_a_turn_has_a_maximum_of_drafts() -> None:
    """At most `max_per_turn` drafts start in one turn."""
    budget = DraftBudget(SpeculationSettings(max_per_turn=2))
    assert [budget.begin(before) for before in range(4)] == [None, None, DraftDeclined.TURN, DraftDeclined.TURN]


def test_a_busy_host_starts_no_draft() -> None:
    """No draft starts while `max_concurrent` replies have started and are not audible yet."""
    budget = DraftBudget(SpeculationSettings(max_concurrent=2))
    budget.think()
    assert budget.begin(0) is None
    budget.think()
    assert budget.begin(0) is DraftDeclined.BUSY
    budget.thought()
    assert budget.begin(0) is None


def test_a_disabled_budget_starts_no_draft() -> None:
    """With enabled=False no draft starts."""
    assert DraftBudget(SpeculationSettings(enabled=False)).begin(0) is DraftDeclined.OFF


@given(
    st.lists(st.sampled_from(["draft", "keep", "discard", "answer"]), max_size=200), st.floats(0, 1), st.integers(1, 10)
)
def test_discarded_drafts_stay_within_the_budget(story: list[str], share: float, cap: int) -> None:
    """Discarded and unfinished drafts are at most `waste_budget` times the answered turns plus `waste_cap`.

    `share` and `cap` are the values of these settings, and `story` is the order of events.
    """
    budget = DraftBudget(SpeculationSettings(waste_budget=share, waste_cap=cap))
    under_way = discarded = answered = 0
    for act in story:
        if act == "draft" and budget.begin(0) is None:
            under_way += 1
        elif act == "keep" and under_way:
            under_way -= 1
            answered += 1
            budget.answered()
            budget.kept()
        elif act == "discard" and under_way:
            under_way -= 1
            discarded += 1
        elif act == "answer":
            answered += 1
            budget.answered()
        assert discarded + under_way <= share * answered + cap + 1e-6


def test_a_kept_draft_is_refunded() -> None:
    """A draft that becomes the reply of its turn is not charged to the budget, so such turns never exhaust it."""
    budget = DraftBudget(SpeculationSettings(waste_budget=0, waste_cap=1))
    for _ in range(5):
        assert budget.begin(0) is None
        assert budget.begin(0) is DraftDeclined.BUDGET
        budget.answered()
        budget.kept()
