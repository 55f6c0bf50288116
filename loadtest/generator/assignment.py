"""A worker's assignment: the scenario, the worker's share of the calls, and the start time.

The assignment is sent to the worker process as one line of JSON.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from loadtest.scenario.scenario import Arrivals, CallerBehavior, Scenario
from loadtest.scenario.schedule import Call
from rejoinder.core.capacity.budgets import Tier
from rejoinder.core.wire.formats import AudioFormat


@dataclass(frozen=True, slots=True)
class WorkerAssignment:
    """Calls that one worker makes, and when.

    Attributes:
        scenario: The scenario of the run.
        calls: The worker's share of the calls.
        measure_from_s: Start of the measured time in seconds after the start of the run.
        measure_to_s: End of the measured time in seconds after the start of the run.
        start_at: Start of the run as Unix time, because several machines share no other clock.
    """

    scenario: Scenario
    calls: tuple[Call, ...]
    measure_from_s: float
    measure_to_s: float
    start_at: float

    def document(self) -> dict[str, Any]:
        """Return the assignment as a JSON document that `parse` reads. It includes the API key."""
        return {
            "scenario": scenario_document(self.scenario) | {"api_key": self.scenario.api_key},
            "calls": [asdict(call) for call in self.calls],
            "measure_from_s": self.measure_from_s,
            "measure_to_s": self.measure_to_s,
            "start_at": self.start_at,
        }

    @staticmethod
    def parse(document: dict[str, Any]) -> WorkerAssignment:
        """Return the assignment in a JSON document from the method `document`."""
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
    """Return a scenario as a JSON document, without the API key, so that reports can contain it."""
    document = asdict(scenario)
    document |= {"tier": scenario.tier.value, "arrivals": scenario.arrivals.value, "codec": scenario.codec.value}
    del document["api_key"]
    return document
