"""A whole system with vLLM as its language model, as `rejoinder serve` starts it: every stage is real."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from tests.system.harness.lab import LabClient, deploy
from tests.system.harness.nodes import head
from tests.system.harness.served import Served, serving
from tests.system.harness.watching import wait_until
from tests.vllm.engine import MODEL, SETTINGS, scheduler

# From the last token that somebody reads to the end in vLLM's scheduler. Its current step takes some 30 ms, and an
# answer that was given up would take 20 s more; between the two is room for a busy machine.
STOPPED_S = 8.0
ARGS: dict[str, Any] = {
    "llm": {
        "engine": "vllm",
        "model": MODEL,
        "autoscaling": {"min_replicas": 1, "max_replicas": 1},
        "vllm": SETTINGS.model_dump(),
    },
    "answer_cache": {"enabled": False},
}


@dataclass(frozen=True)
class System:
    served: Served
    lab: LabClient

    @property
    def replica(self) -> dict[str, str]:
        (only,) = self.served.replicas("llm")
        return only

    def now(self) -> dict[str, float]:
        """vLLM's scheduler, by the replica's own metrics."""
        return scheduler(httpx2.get(f"http://{self.replica['target']}/metrics", timeout=5).text)

    def idle(self) -> bool:
        """Nothing runs, nothing waits, no memory is held."""
        state = self.now()
        return not (state["num_requests_running"] or state["num_requests_waiting"] or state["kv_cache_usage_perc"])

    def rest(self) -> dict[str, float]:
        """The scheduler's state once it is idle; fails if that does not come about."""
        wait_until(self.idle, STOPPED_S, "a free scheduler")
        return self.now()

    def start(self, kind: str, **order: Any) -> int:
        """Begin a call of the language model or the speech recognizer, as `Lab` reads it."""
        return self.lab.start(kind, stage="llm", **order)

    def ask(self, text: str, tokens: int) -> int:
        return self.start("read", text=text, tokens=tokens)

    def finish(self, number: int) -> str:
        """The whole answer of a call; fails with the call's error if it has one."""
        wait_until(lambda: bool(self.lab.state(number)["over"]), 60, "the answer")
        state = self.lab.state(number)
        assert not state["error"], state["error"]
        return "".join(state["answers"])

    def answer(self, text: str, tokens: int) -> str:
        return self.finish(self.ask(text, tokens))


@contextmanager
def running(folder: Path) -> Iterator[System]:
    """A cluster of one node with the application and the lab on it."""
    with head() as node, serving(folder, ARGS, address=node.address, environment=node.environment) as served:
        yield System(served, deploy(node, served.url, "rejoinder"))
