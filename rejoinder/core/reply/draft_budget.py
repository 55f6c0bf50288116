"""How much work may be done for turns that may turn out not to be over.

A draft (a reply begun at the soft end) is a bet that the caller has finished. Three limits keep bets from costing
anyone who has: so many a turn, none while the host is busy with replies that somebody waits for, and a budget of lost
ones. The budget is exact: a draft pays when it begins and is paid back if it is kept, so that lost drafts never exceed
`waste_budget` times the answered turns plus `waste_cap`, however many are under way.
"""

from __future__ import annotations

from enum import Enum

from rejoinder.core.settings.settings import SpeculationSettings


class DraftDeclined(Enum):
    """Why no draft was begun; values are metric labels."""

    OFF = "off"
    TURN = "turn"
    BUSY = "busy"
    BUDGET = "budget"
    DEGRADATION = "degradation"


class DraftBudget:
    """One for all conversations of a host; not thread-safe."""

    def __init__(self, settings: SpeculationSettings) -> None:
        self._settings = settings
        self._tokens = settings.waste_cap
        self._thinking = 0

    @property
    def thinking(self) -> int:
        """Replies, drafts among them, that are not audible yet."""
        return self._thinking

    def think(self) -> None:
        """A reply was begun."""
        self._thinking += 1

    def thought(self) -> None:
        """A reply became audible, or ended without that."""
        self._thinking -= 1

    def begin(self, before: int) -> DraftDeclined | None:
        """Pay for a draft, unless something speaks against it; the turn has had `before` drafts already."""
        if not self._settings.enabled:
            return DraftDeclined.OFF
        if before >= self._settings.max_per_turn:
            return DraftDeclined.TURN
        if self._thinking >= self._settings.max_concurrent:
            return DraftDeclined.BUSY
        if self._tokens < 1:
            return DraftDeclined.BUDGET
        self._tokens -= 1
        return None

    def kept(self) -> None:
        """A draft became a turn's answer: it cost nothing."""
        self._tokens = min(self._settings.waste_cap, self._tokens + 1)

    def answered(self) -> None:
        """A turn is being answered, by a draft or not."""
        self._tokens = min(self._settings.waste_cap, self._tokens + self._settings.waste_budget)
