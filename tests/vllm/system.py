"""A served system with real engines in every stage and vLLM as the language model."""

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

# Maximum seconds until vLLM's scheduler drops a cancelled request. It needs one step of about 30 ms, or longer on a
# busy machine. Without the cancellation the answer would take 20 s more.
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
    """The served system, and the lab (a test client in the cluster) that calls its deployments."""

    served: Served
    lab: LabClient

    @property
    def replica(self) -> dict[str, str]:
        """The only language model replica: its process id (`pid`), metrics address (`target`) and other fields."""
        (only,) = self.served.replicas("llm")
        return only

    def now(self) -> dict[str, float]:
        """Return vLLM's metrics from the replica's metrics page, by name without the prefix `vllm:`."""
        return scheduler(httpx2.get(f"http://{self.replica['target']}/metrics", timeout=5).text)

    def idle(self) -> bool:
        """Return True if no request runs or waits and no KV cache is in use."""
        state = self.now()
        return not (state["num_requests_running"] or state["num_requests_waiting"] or state["kv_cache_usage_perc"])

    def rest(self) -> dict[str, float]:
        """Wait until the scheduler is idle and return its metrics; fail after STOPPED_S seconds."""
        wait_until(self.idle, STOPPED_S, "an idle scheduler")
        return self.now()

    def start(self, kind: str, **order: Any) -> int:
        """Let the lab start a call of this kind, such as "stt", with the arguments `order`. Return its number."""
        return self.lab.start(kind, stage="llm", **order)

    def ask(self, text: str, tokens: int) -> int:
        """Start a call for an answer to `text` of at most `tokens` tokens, and return the call's number."""
        return self.start("read", text=text, tokens=tokens)

    def finish(self, number: int) -> str:
        """Wait up to 60 s for the call with this number and return its answer; fail if the call failed."""
        wait_until(lambda: bool(self.lab.state(number)["over"]), 60, "the answer")
        state = self.lab.state(number)
        assert not state["error"], state["error"]
        return "".join(state["answers"])

    def answer(self, text: str, tokens: int) -> str:
        """Return the answer to `text`, of at most `tokens` tokens."""
        return self.finish(self.ask(text, tokens))


@contextmanager
def running(folder: Path) -> Iterator[System]:
    """Run a one-node cluster with the application and the lab. Write configuration and log to `folder`."""
    with head() as node, serving(folder, ARGS, address=node.address, environment=node.environment) as served:
        yield System(served, deploy(node, served.url, "rejoinder"))
