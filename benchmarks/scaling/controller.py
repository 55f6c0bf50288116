"""Ray Serve's autoscaler in virtual time: it calls a policy, applies delays and bounds, and starts and stops replicas.

The delays follow `ray.serve.autoscaling_policy._apply_delay_logic` of Ray 2.60: a need for more replicas must last for
`upscale_delay_s`, a need for fewer for `downscale_delay_s`, and a decision in the other direction starts the time anew.
`tests/benchmarks/scaling/test_controller.py` compares them with Serve's function.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

from ray.serve.autoscaling_policy import replica_queue_length_autoscaling_policy
from ray.serve.config import AutoscalingConfig

from rejoinder.core.settings.settings import Autoscaling

Policy = Callable[[Any], tuple[float, dict[str, Any]]]

SERVE_DEFAULTS = Autoscaling(
    min_replicas=1,
    max_replicas=10_000,
    upscale_delay_s=30,
    downscale_delay_s=600,
    look_back_period_s=30,
    metrics_interval_s=10,
)
"""The delays and intervals of Ray Serve if a deployment sets none."""


def stock_policy(context: Any) -> tuple[float, dict[str, Any]]:
    """Return the decision of Serve's own policy, which divides the ongoing requests by the target."""
    desired, state = replica_queue_length_autoscaling_policy(context)
    return float(desired), dict(state)


@dataclass(slots=True)
class DelayedDecision:
    """Serve's delays: a need for another number of replicas counts once it has lasted."""

    upscale_delay_s: float
    downscale_delay_s: float
    _up: bool = False
    _since: float | None = None

    def decide(self, desired: int, planned: int, now: float) -> int:
        """Return the number of replicas to aim at.

        Args:
            desired: The number that the policy wants.
            planned: The number that is aimed at now.
            now: Time in seconds.
        """
        if desired == planned:
            self._since = None
            return planned
        up = desired > planned
        if self._since is None or up != self._up:
            self._since, self._up = now, up
        if now - self._since + 1e-6 < (self.upscale_delay_s if up else self.downscale_delay_s):
            return planned
        self._since = None
        return desired


@dataclass(slots=True)
class SimulatedController:
    """Autoscaler of one deployment in virtual time.

    Attributes:
        policy: The policy under test.
        scaling: Bounds, delays and intervals.
        start_s: Seconds that a replica takes to start.
        running: Replicas that run.
        planned: Replicas that are aimed at.
        history: (time, planned replicas) after each change.
    """

    policy: Policy
    scaling: Autoscaling
    start_s: float
    running: int
    planned: int
    history: list[tuple[float, int]] = field(default_factory=list)
    _starting: list[float] = field(default_factory=list)
    _state: dict[str, Any] = field(default_factory=dict)
    _ongoing: list[tuple[float, float]] = field(default_factory=list)
    _delays: DelayedDecision = field(init=False)
    _config: AutoscalingConfig = field(init=False)

    def __post_init__(self) -> None:
        self._delays = DelayedDecision(self.scaling.upscale_delay_s, self.scaling.downscale_delay_s)
        self._config = AutoscalingConfig(
            min_replicas=self.scaling.min_replicas,
            max_replicas=self.scaling.max_replicas,
            target_ongoing_requests=self.scaling.target_ongoing_requests,
        )
        self.history.append((-math.inf, self.planned))

    @property
    def reversals(self) -> int:
        """Number of times that the planned replicas changed their direction: growth after a fall or a fall after it."""
        counts = [count for _, count in self.history]
        changes = [after - before for before, after in pairwise(counts) if after != before]
        return sum((one > 0) != (other > 0) for one, other in pairwise(changes))

    def lose(self, replicas: int, now: float, replace_s: float) -> None:
        """Lose running replicas. Serve starts as many again, which takes `replace_s` and the start of a replica."""
        self.running -= replicas
        self._starting += [now + replace_s + self.start_s] * replicas

    def started(self, now: float) -> int:
        """Return how many replicas have started since the last call, and count them as running."""
        ready = sum(at <= now for at in self._starting)
        self._starting = [at for at in self._starting if at > now]
        self.running += ready
        return ready

    def tick(self, signals: Mapping[str, list[float]], ongoing: float, now: float) -> int:
        """Let the policy decide once. Return how many running replicas must stop.

        Args:
            signals: The newest value of each signal per replica, as the policy reads them.
            ongoing: Requests in the deployment now, waiting ones included.
            now: Time in seconds.
        """
        self._ongoing = [(at, count) for at, count in self._ongoing if at > now - self.scaling.look_back_period_s]
        self._ongoing.append((now, ongoing))
        context = SimpleNamespace(
            current_num_replicas=self.running,
            target_num_replicas=self.planned,
            total_num_requests=sum(count for _, count in self._ongoing) / len(self._ongoing),
            total_queued_requests=0.0,
            raw_metrics={
                name: {index: [SimpleNamespace(value=value)] for index, value in enumerate(values)}
                for name, values in signals.items()
            },
            policy_state=self._state,
            current_time=now,
            config=self._config,
        )
        wanted, self._state = self.policy(context)
        planned = self._delays.decide(math.ceil(wanted - 1e-9), self.planned, now)
        return self._aim(max(self.scaling.min_replicas, min(self.scaling.max_replicas, planned)), now)

    def _aim(self, planned: int, now: float) -> int:
        change, self.planned = planned - self.planned, planned
        if change == 0:
            return 0
        self.history.append((now, planned))
        if change > 0:
            self._starting += [now + self.start_s] * change
            return 0
        cancelled = min(-change, len(self._starting))
        self._starting = sorted(self._starting)[: len(self._starting) - cancelled]
        stopping = -change - cancelled
        self.running -= stopping
        return stopping
