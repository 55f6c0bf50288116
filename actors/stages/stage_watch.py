"""Watch over the stages of a host: probes the ones that have not answered lately.

`rejoinder.core.resilience.reachability` decides which stages are probed and which are lost. A host that has lost a
stage refuses new calls and says so in its health.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from actors.stages.ports import Metrics
from actors.stages.retry import contained
from rejoinder.core.errors import RejoinderError
from rejoinder.core.resilience.reachability import Reachability

# Pause between two looks for stages to probe, in seconds.
LOOK_S = 0.25
# Seconds that a stage has to answer a probe. A probe needs no engine: it takes milliseconds on an idle machine.
PROBE_TIMEOUT_S = 1.0

Probe = Callable[[], Awaitable[object]]


class StageWatch:
    """Knows which stages a host reaches. Keep `run` running."""

    def __init__(
        self, probes: Mapping[str, Probe], lost_after_s: float, metrics: Metrics, clock: Callable[[], float]
    ) -> None:
        """Create a watch that has not lost a stage.

        Args:
            probes: By stage, a function that asks the stage for a sign of life. Without a probe a stage is not watched.
            lost_after_s: Seconds without an answer after which a stage whose probes fail is lost.
            metrics: Counts the failed probes, as backend errors of "STAGE_probe".
            clock: Returns the monotonic time, in seconds.
        """
        self._probes = dict(probes)
        self._metrics = metrics
        self._clock = clock
        self._reachability = Reachability(probes, lost_after_s, clock())

    @property
    def lost(self) -> tuple[str, ...]:
        """Names of the stages that the host cannot reach."""
        return self._reachability.lost

    def answered(self, stage: str) -> None:
        """Record that a stage has answered a request of a call, so that it need not be probed."""
        self._reachability.answered(stage, self._clock())

    async def run(self) -> None:
        """Probe the stages that have not answered lately, until cancelled."""
        async with asyncio.TaskGroup() as group:
            while self._probes:
                for stage in self._reachability.due(self._clock()):
                    group.create_task(self._probe(stage))
                await asyncio.sleep(LOOK_S)

    async def _probe(self, stage: str) -> None:
        answered = False
        with contained(f"{stage}_probe", self._metrics):
            try:
                async with asyncio.timeout(PROBE_TIMEOUT_S):
                    await self._probes[stage]()
                answered = True
            except (RejoinderError, TimeoutError):
                self._metrics.error("backend", f"{stage}_probe")
        if answered:
            self._reachability.answered(stage, self._clock())
        else:
            self._reachability.failed(stage, self._clock())
