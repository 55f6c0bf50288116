"""Readiness of a host: which stages it cannot reach, so that it refuses calls that nobody would answer.

    REACHED -- FAILURES probes failed in a row, and none succeeded for `lost_after_s` --> LOST
    LOST -- ANSWERS answers in a row --> REACHED

A host learns from the answers to its calls' requests that a stage is there. If a stage has answered nothing for
PROBE_S, the host probes it. The two thresholds differ (hysteresis), so that a stage that answers now and then does not
make the host ready and not ready by turns. `lost_after_s` is longer than Serve takes to replace a replica: callers then
hear an apology and their answer, which is better than a refusal.

Nothing here has a clock: the methods take `now`, a monotonic time in seconds.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

PROBE_S = 1.0
"""Seconds without an answer after which a stage is probed, and seconds between two probes."""
FAILURES = 3
"""Probes that must fail in a row before a stage is lost."""
ANSWERS = 2
"""Answers in a row after which a lost stage is reached again."""


@dataclass(slots=True)
class _Stage:
    """What is known of one stage. Times are monotonic seconds.

    Attributes:
        heard_at: Time of its last answer.
        probed_at: Time at which its last probe was due.
        probing: Whether a probe is under way.
        failures: Probes that failed since the last answer.
        answers: Answers since the last failure.
        lost: Whether the stage is lost.
    """

    heard_at: float
    probed_at: float = -math.inf
    probing: bool = False
    failures: int = 0
    answers: int = 0
    lost: bool = False


class Reachability:
    """Which stages one host reaches. Not thread-safe."""

    def __init__(self, stages: Iterable[str], lost_after_s: float, now: float) -> None:
        """Create a host that reaches all its stages.

        Args:
            stages: Names of the stages without which no turn is answered.
            lost_after_s: Seconds without an answer after which a stage whose probes fail is lost.
            now: Monotonic time in seconds.
        """
        self._lost_after_s = lost_after_s
        self._stages = {stage: _Stage(heard_at=now) for stage in stages}

    @property
    def lost(self) -> tuple[str, ...]:
        """Names of the stages that the host cannot reach, in the order in which they were given."""
        return tuple(name for name, stage in self._stages.items() if stage.lost)

    def due(self, now: float) -> list[str]:
        """Return the stages to probe now. Report the result of each probe with `answered` or `failed`."""
        due = [
            name
            for name, stage in self._stages.items()
            if not stage.probing
            and now - stage.probed_at >= PROBE_S
            and (stage.lost or now - stage.heard_at >= PROBE_S)
        ]
        for name in due:
            self._stages[name].probing = True
            self._stages[name].probed_at = now
        return due

    def answered(self, name: str, now: float) -> None:
        """Record an answer of a stage, to a probe or to a request of a call. Other stages' answers are ignored."""
        stage = self._stages.get(name)
        if stage is None:
            return
        stage.heard_at, stage.failures, stage.probing = now, 0, False
        stage.answers += 1
        stage.lost = stage.lost and stage.answers < ANSWERS

    def failed(self, name: str, now: float) -> None:
        """Record a probe that failed or was not answered in time."""
        stage = self._stages[name]
        stage.probing, stage.answers = False, 0
        stage.failures += 1
        stage.lost = stage.lost or (stage.failures >= FAILURES and now - stage.heard_at >= self._lost_after_s)
