"""What becomes of a running system when a process of its Ray head is gone.

    RUNNING -- the GCS is gone --> ENDING -- no call is left, or `calls_go_on_s` later --> ENDED
    ENDING -- the GCS is back --> RUNNING
    RUNNING, ENDING -- the raylet is gone --> ENDED

The GCS (Global Control Service) is Ray's table of nodes and processes. Without it calls go on, but nothing that ends is
replaced, and after a minute Ray ends every process that has not reached it again. The raylet is Ray's process of one
machine. Without it nothing is replaced either, and its workers end one after the other, so turns go unanswered.

Nothing here has a clock: `step` takes `now`, a monotonic time in seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class HeadVerdict(Enum):
    """What a head can still do.

    Attributes:
        RUNNING: Everything.
        ENDING: Calls go on for a while.
        ENDED: Calls are not answered, or will not be in a moment.
    """

    RUNNING = "running"
    ENDING = "ending"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class HeadState:
    """The processes of a head.

    Attributes:
        gcs: Whether the GCS is there.
        raylet: Whether the raylet is there; True if it is on another machine.
        calls: Number of calls in progress; None if it is not known.
    """

    gcs: bool = True
    raylet: bool = True
    calls: int | None = None


class HeadFate:
    """Decides when a system ends whose head has lost a process."""

    def __init__(self, calls_go_on_s: float) -> None:
        """Create a head that runs.

        Args:
            calls_go_on_s: Seconds for which calls go on without the GCS.
        """
        self._calls_go_on_s = calls_go_on_s
        self._gone_at: float | None = None

    def step(self, state: HeadState, now: float) -> HeadVerdict:
        """Return what the head can still do, from its processes at a time that never decreases."""
        if not state.raylet:
            return HeadVerdict.ENDED
        if state.gcs:
            self._gone_at = None
            return HeadVerdict.RUNNING
        if self._gone_at is None:
            self._gone_at = now
        over = state.calls == 0 or now - self._gone_at >= self._calls_go_on_s
        return HeadVerdict.ENDED if over else HeadVerdict.ENDING
