"""What a worker is told: the scenario, its share of the calls, and when to start. Travels as one line of JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from loadtest.scenario.scenario import Arrivals, CallerBehavior, Scenario
from loadtest.scenario.schedule import Call
from rejoinder.core.capacity.budgets import Tier
from rejoinder.core.wire.formats import AudioFormat


@dataclass(frozen=True, slots=True)
class WorkerAssignment:
    """`start_at` is wall-clock time, the only one that two machines share."""

    scenario: Scenario
    calls: tuple[Call, ...]
    measure_from_s: float
    measure_to_s: float
    start_at: float

    def document(self) -> dict[str, Any]:
        return {
            "scenario": scenario_document(self.scenario) | {"api_key": self.scenario.api_key},
            "calls": [asdict(call) for call in self.calls],
            "measure_from_s": self.measure_from_s,
            "measure_to_s": self.measure_to_s,
            "start_at": self.start_at,
        }

    @staticmethod
    def parse(document: dict[str, Any]) -> WorkerAssignment:
        scenario = dict(document["scenario"])
        scenario["behavior"] = CallerBehavior(**scenario["behavior"])
        scenario |= {"tier": Tier(scenario["tier"]), "arrivals": Arrivals(scenario["arrivals"])}
        scenario |= {"codec": AudioFormat(scenario["codec"])}
        scenario |= {name: tuple(scenario[name]) for name in ("regions", "clips")}
        return WorkerAssignment(
            Scenario(**scenario),
            calls=tuple(Call(**call) for call in document["calls"]),
            measure_from_s=document["measure_from_s"],
            measure_to_s=document["measure_to_s"],
            start_at=document["start_at"],
        )


def scenario_document(scenario: Scenario) -> dict[str, Any]:
    """A scenario as a report has it: without the key."""
    document = asdict(scenario)
    document |= {"tier": scenario.tier.value, "arrivals": scenario.arrivals.value, "codec": scenario.codec.value}
    del document["api_key"]
    return document
