"""How many drafts may be begun."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rejoinder.core.reply.draft_budget import DraftBudget, DraftDeclined
from rejoinder.core.settings.settings import SpeculationSettings


def test_a_turn_has_only_so_many_drafts() -> None:
    """A caller who pauses again and again is waited for."""
    speculation = DraftBudget(SpeculationSettings(max_per_turn=2))
    assert [speculation.begin(before) for before in range(4)] == [None, None, DraftDeclined.TURN, DraftDeclined.TURN]


def test_a_busy_host_begins_none() -> None:
    """Replies that somebody waits for go first, and what ends makes room again."""
    speculation = DraftBudget(SpeculationSettings(max_concurrent=2))
    speculation.think()
    assert speculation.begin(0) is None
    speculation.think()
    assert speculation.begin(0) is DraftDeclined.BUSY
    speculation.thought()
    assert speculation.begin(0) is None


def test_switched_off_it_begins_none() -> None:
    """The switch of the ablation."""
    assert DraftBudget(SpeculationSettings(enabled=False)).begin(0) is DraftDeclined.OFF


@given(
    st.lists(st.sampled_from(["draft", "keep", "lose", "answer"]), max_size=200), st.floats(0, 1), st.integers(1, 10)
)
def test_lost_drafts_are_never_more_than_the_budget(story: list[str], share: float, cap: int) -> None:
    """At every instant: lost drafts <= waste_budget x answered turns + waste_cap, whatever is under way."""
    speculation = DraftBudget(SpeculationSettings(waste_budget=share, waste_cap=cap))
    under_way = lost = answered = 0
    for act in story:
        if act == "draft" and speculation.begin(0) is None:
            under_way += 1
        elif act == "keep" and under_way:
            under_way -= 1
            answered += 1
            speculation.answered()
            speculation.kept()
        elif act == "lose" and under_way:
            under_way -= 1
            lost += 1
        elif act == "answer":
            answered += 1
            speculation.answered()
        assert lost + under_way <= share * answered + cap + 1e-6


def test_a_kept_draft_costs_nothing() -> None:
    """Turns whose drafts are all kept never run out of budget."""
    speculation = DraftBudget(SpeculationSettings(waste_budget=0, waste_cap=1))
    for _ in range(5):
        assert speculation.begin(0) is None
        assert speculation.begin(0) is DraftDeclined.BUDGET
        speculation.answered()
        speculation.kept()
