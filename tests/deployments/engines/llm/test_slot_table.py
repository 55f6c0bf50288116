"""The slots of conversations in llama.cpp."""

from __future__ import annotations

from deployments.engines.llm.slot_table import SlotTable


def test_a_conversation_keeps_its_slot() -> None:
    """A conversation gets the same slot each time, and it is new only the first time."""
    table = SlotTable(3)
    assert [table.take("a"), table.take("b"), table.take("a")] == [(0, True), (1, True), (0, False)]


def test_the_slot_that_was_used_longest_ago_is_given_away() -> None:
    """If all slots are taken, a new conversation gets the one with the oldest last request, whose owner is then new."""
    table = SlotTable(2)
    table.take("a")
    table.take("b")
    table.take("a")
    assert table.take("c") == (1, True)
    assert table.take("a") == (0, False)
    assert table.take("b") == (1, True)


def test_requests_without_a_conversation_share_no_slot() -> None:
    """Each request with an empty id gets a slot of its own, so that none waits for another."""
    table = SlotTable(2)
    assert [table.take(""), table.take(""), table.take("")] == [(0, True), (1, True), (0, True)]
