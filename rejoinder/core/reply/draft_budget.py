"""Budget of drafts: how much speculative work a host may do for turns that may not be over.

A draft is a reply that starts at the tentative end of speech. If the caller continues, the draft is lost. Three limits
keep drafts from slowing down other callers: a maximum number of drafts per turn, no drafts while too many replies of
the host are not audible yet, and a budget of lost drafts.

The budget counts tokens. A draft costs one token when it starts, and gets it back if it becomes the answer. Each
answered turn adds `waste_budget` tokens, up to `waste_cap` tokens in the budget. The number of lost drafts therefore
never exceeds `waste_budget` times the answered turns plus `waste_cap`.
"""

from __future__ import annotations

from enum import Enum

from rejoinder.core.settings.settings import SpeculationSettings


class DraftDeclined(Enum):
    """Reason why a draft is not started. Values are metric labels.

    OFF: drafts are disabled. TURN: the turn has had `max_per_turn` drafts. BUSY: `max_concurrent` replies of the host
    are under way and not audible yet. BUDGET: too many drafts were lost. DEGRADATION: a degradation measure forbids
    drafts.
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
        """Number of replies under way, including drafts, that are not audible yet."""
        return self._pending

    def think(self) -> None:
        """Record that a reply or a draft has started and is not audible yet."""
        self._pending += 1

    def thought(self) -> None:
        """Record that a started reply has become audible, or has ended without becoming audible."""
        self._pending -= 1

    def begin(self, before: int) -> DraftDeclined | None:
        """Take one token of the budget for a draft and return None, or return why the draft must not start.

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
        """Record that a draft has become the answer of its turn, and return its token to the budget."""
        self._tokens = min(self._settings.waste_cap, self._tokens + 1)

    def answered(self) -> None:
        """Record that a turn is answered, with or without a draft. This adds `waste_budget` tokens to the budget."""
        self._tokens = min(self._settings.waste_cap, self._tokens + self._settings.waste_budget)
