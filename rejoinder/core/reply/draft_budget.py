"""Budget of drafts: how much speculative work a host may do for turns that may not be over.

A draft is a reply that starts at the tentative end of speech. If the caller continues, its work is lost. Three limits
keep drafts from slowing down other callers: a number per turn, none while the host is busy with replies that are not
audible yet, and a budget of lost drafts. The budget is exact. A draft is paid for when it starts, and refunded if it
becomes the answer. So lost drafts never exceed `waste_budget` times the answered turns plus `waste_cap`, whatever the
number of drafts under way.
"""

from __future__ import annotations

from enum import Enum

from rejoinder.core.settings.settings import SpeculationSettings


class DraftDeclined(Enum):
    """Reason why a draft is not started. Values are metric labels.

    OFF: drafts are disabled. TURN: the turn has had `max_per_turn` drafts. BUSY: `max_concurrent` replies are not
    audible yet. BUDGET: too many drafts were lost. DEGRADATION: a degradation measure forbids drafts.
    """

    OFF = "off"
    TURN = "turn"
    BUSY = "busy"
    BUDGET = "budget"
    DEGRADATION = "degradation"


class DraftBudget:
    """Budget of drafts, shared by all conversations of a host. Not thread-safe."""

    def __init__(self, settings: SpeculationSettings) -> None:
        self._settings = settings
        self._tokens = settings.waste_cap
        self._pending = 0

    @property
    def thinking(self) -> int:
        """Number of replies, drafts among them, that are under way and not audible yet."""
        return self._pending

    def think(self) -> None:
        """Record that a reply has started."""
        self._pending += 1

    def thought(self) -> None:
        """Record that a reply has become audible, or has ended before that."""
        self._pending -= 1

    def begin(self, before: int) -> DraftDeclined | None:
        """Pay for a draft and return None, or return why it must not start.

        Args:
            before: Number of drafts that the turn has had already.
        """
        if not self._settings.enabled:
            return DraftDeclined.OFF
        if before >= self._settings.max_per_turn:
            return DraftDeclined.TURN
        if self._pending >= self._settings.max_concurrent:
            return DraftDeclined.BUSY
        if self._tokens < 1:
            return DraftDeclined.BUDGET
        self._tokens -= 1
        return None

    def kept(self) -> None:
        """Record that a draft has become the answer of its turn, and refund its cost."""
        self._tokens = min(self._settings.waste_cap, self._tokens + 1)

    def answered(self) -> None:
        """Record that a turn is answered, with or without a draft. This adds `waste_budget` to the budget."""
        self._tokens = min(self._settings.waste_cap, self._tokens + self._settings.waste_budget)
