"""Application for tests that calls stages as a session host does. Tests control it over HTTP, with `LabClient`.

Tests cannot call stages from their own process. How Serve cancels a call depends on environment variables at the import
of Ray Serve, and only replicas have the values that the product sets. A call here is one request to a stage. A puppet
is a replica of a stage that does what the request says (see the module `puppet`).
"""

import asyncio
import contextvars
import itertools
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import httpx2
from fastapi import FastAPI
from ray import serve
from ray.serve import Application
from ray.serve.handle import DeploymentHandle

from actors.stages.ports import LlmRequest, SttJob, TtsRequest
from deployments.app import stage_deployment
from deployments.serving.compat import broadcast
from deployments.serving.handles import LlmHandle, SttHandle, TtsHandle, TurnDetectorHandle
from rejoinder.core.errors import RejoinderError
from rejoinder.core.reply.prompt_window import ChatMessage
from rejoinder.core.settings.settings import Autoscaling, StageSettings
from tests.system.harness.nodes import ROOT, Node
from tests.system.harness.puppet import Puppet, work
from tests.system.harness.watching import wait_until

PUPPETS = 3
# Maximum seconds until a puppet (a test replica) answers. It takes milliseconds, but the machine may be busy.
PUPPET_S = 5.0
web = FastAPI()


@dataclass
class Call:
    """One request to a stage and its results so far.

    Attributes:
        began: Monotonic time of its start.
        task: The task that makes the call.
        stream: The open stream of answers, None before it is open and for a call with a single answer.
        items: Number of answers so far.
        first_s: Seconds from the start to the first answer, None before it.
        error: Name and message of the error that ended the call, "" without one.
        answers: The text of each answer.
        leave: Event that makes the reader of the stream leave it.
    """

    began: float
    task: asyncio.Task[None] | None = None
    stream: Any = None
    items: int = 0
    first_s: float | None = None
    error: str = ""
    answers: list[str] = field(default_factory=list)
    leave: asyncio.Event = field(default_factory=asyncio.Event)

    def take(self, answer: object) -> None:
        """Record an answer: count it, note the time of the first one, and keep its text."""
        self.items += 1
        self.first_s = self.first_s or time.monotonic() - self.began
        self.answers.append(str(getattr(answer, "text", "")))


def _request(order: dict[str, Any]) -> LlmRequest:
    # This function stands above the class, because `serve.ingress` copies the global names that the routes use when it
    # decorates the class.
    if "text" in order:
        return LlmRequest((ChatMessage("user", order["text"]),), max_tokens=order["tokens"])
    return work(order["first_s"], order.get("items", 1))


@serve.ingress(web)
class Lab:
    """Ingress deployment that makes calls to stages. Each call has a number, by which the routes name it."""

    def __init__(self, puppet: DeploymentHandle, served: str) -> None:
        self._puppet = puppet
        self._llm = {"puppet": LlmHandle(puppet)}
        self._unary = TurnDetectorHandle(puppet)
        if served:
            self._llm["llm"] = LlmHandle(serve.get_deployment_handle("Llm", served))
            self._tts = TtsHandle(serve.get_deployment_handle("Tts", served))
            self._stt = SttHandle(serve.get_deployment_handle("Stt", served))
        self._calls: dict[int, Call] = {}
        self._numbers = itertools.count(1)

    @web.post("/start")
    async def start(self, order: dict[str, Any]) -> int:
        """Start the call that `order` describes, and return its number.

        `order` has the key "kind": "read" (read a stream), "open" (open a stream and wait), "ask" (a single answer),
        "tts" or "stt". The other keys depend on the kind, for example "first_s", the seconds until the first answer.
        """
        number = next(self._numbers)
        call = self._calls[number] = Call(time.monotonic())
        # Serve cancels all calls made in the context of an HTTP request when that request is answered. This call must
        # continue, so it gets a new context.
        call.task = asyncio.create_task(self._watched(call, order), context=contextvars.Context())
        return number

    @web.post("/state/{number}")
    async def state(self, number: int) -> dict[str, Any]:
        """Return for call `number` its "replica" ("" before a stream is open), and as "over" whether it has ended.

        The other keys are "items", "first_s", "error" and "answers", as in `Call`. Raise the error that ended the call
        if `Call.error` does not record errors of its type.
        """
        call = self._calls[number]
        assert call.task is not None
        if call.task.done() and not call.task.cancelled():
            call.task.result()
        return {
            "replica": call.stream.replica if call.stream else "",
            "items": call.items,
            "first_s": call.first_s,
            "error": call.error,
            "answers": call.answers,
            "over": call.task.done(),
        }

    @web.post("/cancel/{number}")
    async def cancel(self, number: int) -> None:
        """Cancel the task of call `number`, as a host cancels a hedged request, and wait until it has ended."""
        call = self._calls[number]
        assert call.task is not None
        call.task.cancel()
        await asyncio.wait({call.task})

    @web.post("/leave/{number}")
    async def leave(self, number: int) -> None:
        """Make the reader of call `number` leave its stream before its end, and wait until the call has ended."""
        call = self._calls[number]
        assert call.task is not None
        call.leave.set()
        await asyncio.wait({call.task})

    @web.post("/flood/{count}")
    async def flood(self, count: int) -> list[float]:
        """Make `count` calls at once, which take 1 to `count` ms, and return these times in the order of the calls."""
        verdicts = await asyncio.gather(*(self._unary.predict(bytes(1 + number)) for number in range(count)))
        return [verdict.inference_ms for verdict in verdicts]

    @web.post("/sweep/{count}")
    async def sweep(self, count: int) -> None:
        """Start and cancel `count` streams and `count` single calls, one after another.

        The delay between start and cancellation grows from 0 to 10 ms, to cover every moment while a call is sent to
        a replica.
        """
        for moment in range(count):
            for begin in (self._read, self._ask):
                call = Call(time.monotonic())
                task = asyncio.create_task(begin(call, {"first_s": 3600, "avoid": [], "strict": False}))
                await asyncio.sleep(0.01 * moment / count)
                task.cancel()
                await asyncio.wait({task})

    @web.get("/puppets")
    async def puppets(self) -> list[dict[str, Any]]:
        """Return "replica" (its id) and "pid" of each puppet that answers within PUPPET_S seconds.

        The other keys are its numbers of requests: "began", "done" and "stopped" (cancelled).
        """
        return await broadcast(self._puppet, "describe", PUPPET_S)

    async def _watched(self, call: Call, order: dict[str, Any]) -> None:
        begin = {"read": self._read, "open": self._open, "ask": self._ask, "tts": self._speak, "stt": self._hear}
        try:
            async with asyncio.timeout(order.get("timeout_s")):
                await begin[order["kind"]](call, order)
        except (RejoinderError, TimeoutError) as fault:
            call.error = f"{type(fault).__name__}: {fault}"

    async def _read(self, call: Call, order: dict[str, Any]) -> None:
        llm = self._llm[order.get("stage", "puppet")]
        async with llm.open(_request(order), avoid=frozenset(order["avoid"]), strict=order["strict"]) as stream:
            call.stream = stream
            async for delta in stream:
                call.take(delta)
                if call.leave.is_set():
                    break

    async def _open(self, call: Call, order: dict[str, Any]) -> None:
        async with self._llm["puppet"].open(_request(order)) as stream:
            call.stream = stream
            await call.leave.wait()

    async def _ask(self, call: Call, order: dict[str, Any]) -> None:
        pcm = bytes(round(order["first_s"] * 1000))
        call.take(await self._unary.predict(pcm, avoid=frozenset(order["avoid"])))

    async def _speak(self, call: Call, order: dict[str, Any]) -> None:
        async with self._tts.open(TtsRequest(order["text"])) as chunks:
            async for chunk in chunks:
                call.take(chunk)
                if call.leave.is_set():
                    break

    async def _hear(self, call: Call, order: dict[str, Any]) -> None:
        call.take(await self._stt.transcribe(SttJob(bytes.fromhex(order["pcm"]), deadline_s=60)))


def build(args: dict[str, str]) -> Application:
    """Return the application with three puppets.

    If `args["served"]` is not "", it names another application, whose stages the lab can call too.
    """
    fixed = StageSettings(autoscaling=Autoscaling(min_replicas=PUPPETS, max_replicas=PUPPETS))
    puppet = stage_deployment(Puppet, fixed).bind()
    return serve.deployment(Lab, ray_actor_options={"num_cpus": 0}, max_ongoing_requests=1000).bind(
        puppet, args.get("served", "")
    )


@dataclass(frozen=True)
class LabClient:
    """Client for tests of the lab at `url`. Its methods call the routes of `Lab` with the same name."""

    url: str
    _client: httpx2.Client = field(default_factory=lambda: httpx2.Client(timeout=60), repr=False)

    def start(self, kind: str, **order: Any) -> int:
        """Start a call of this kind and return its number. `order` has further keys of the order (see `Lab.start`)."""
        full = {"kind": kind, "avoid": [], "strict": False, **order}
        return int(self._post("start", full))

    def state(self, number: int) -> dict[str, Any]:
        """Return the state of a call (see `Lab.state`)."""
        found: dict[str, Any] = self._post(f"state/{number}")
        return found

    def cancel(self, number: int) -> None:
        """Cancel a call's task, and wait until it has ended."""
        self._post(f"cancel/{number}")

    def leave(self, number: int) -> None:
        """Make the reader of a call leave its stream, and wait until the call has ended."""
        self._post(f"leave/{number}")

    def flood(self, count: int) -> list[float]:
        """Make `count` calls at once, which take 1 to `count` ms, and return these times in the order of the calls."""
        answers: list[float] = self._post(f"flood/{count}")
        return answers

    def sweep(self, count: int) -> None:
        """Start and cancel `count` streams and `count` single calls, with growing delays (see `Lab.sweep`)."""
        self._post(f"sweep/{count}")

    def puppets(self) -> list[dict[str, Any]]:
        """Return the ids and the numbers of requests of each puppet that answers (see `Lab.puppets`)."""
        found: list[dict[str, Any]] = self._client.get(f"{self.url}/puppets").json()
        return found

    def counts(self) -> Counter[str]:
        """Return the requests that all puppets together "began", finished ("done") and cancelled ("stopped")."""
        total: Counter[str] = Counter()
        for puppet in self.puppets():
            total.update({name: puppet[name] for name in ("began", "done", "stopped")})
        return total

    def _post(self, path: str, body: dict[str, Any] | None = None) -> Any:
        answer = self._client.post(f"{self.url}/{path}", json=body)
        answer.raise_for_status()
        return answer.json()


def deploy(node: Node, url: str, served: str = "", *, start: bool = False) -> LabClient:
    """Deploy the lab on a running cluster.

    Args:
        node: A node of the cluster.
        url: The base URL of the cluster's Serve. The lab is served at /lab.
        served: Name of an application whose stages the lab can call.
        start: Start Serve at `url` first.
    """
    options = {"host": "127.0.0.1", "port": int(url.rpartition(":")[2])}
    program = (
        "import ray; from ray import serve; from tests.system.harness.lab import build;"
        f"ray.init(address={node.address!r}, log_to_driver=False);"
        f"{start} and serve.start(http_options={options!r});"
        f"serve.run(build({{'served': {served!r}}}), name='lab', route_prefix='/lab')"
    )
    subprocess.run([sys.executable, "-c", program], env=dict(node.environment), cwd=ROOT, check=True, timeout=120)
    client = LabClient(f"{url}/lab")
    # Serve reports the application as running before HAProxy has its route.
    wait_until(lambda: httpx2.get(f"{client.url}/puppets", timeout=30).status_code == 200, 30, "the lab's route")
    return client
