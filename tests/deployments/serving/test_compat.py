"""Contract tests for the internals of Ray, uvicorn, websockets and openai that the product uses.

Each test fails if a new version of a dependency changes what `compat.py` requires of it. The last tests keep every use
of a private name inside the two compat modules.
"""

from __future__ import annotations

import ast
import asyncio
import importlib.metadata
import inspect
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import ray
import uvicorn
from openai.resources.realtime.realtime import AsyncRealtimeConnection
from ray.autoscaler._private.local.node_provider import LocalNodeProvider
from ray.scripts import scripts
from ray.serve._private.client import ServeControllerClient
from ray.serve._private.common import DeploymentHandleSource, DeploymentID, RequestMetadata
from ray.serve.config import HTTPOptions
from ray.serve.context import _get_global_client
from ray.serve.handle import (
    DeploymentBroadcastResponse,
    DeploymentHandle,
    DeploymentResponse,
    DeploymentResponseGenerator,
)
from ray.serve.request_router import PendingRequest, ReplicaID, ReplicaResult, RequestRouter
from uvicorn.protocols.websockets import auto
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.utils import apply_mask as apply_mask_in_python

from deployments.serving import compat
from deployments.serving.placements import NoReplicaAvailable, ReplicaRoute
from deployments.serving.router import AvoidingRouter
from deployments.transports import call_protocol
from loadtest.callers.compat import ping
from tests.test_structure import ROOT, Module, repository, sample

WITHIN_S = 5.0

# -- Pinned versions ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("package", ["ray", "uvicorn", "websockets", "openai"])
def test_the_pinned_version_is_the_tested_one(package: str) -> None:
    """The version in constraints.txt is installed, so the tests below check that version."""
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines())
    assert importlib.metadata.version(package) == pins[package]


# -- Ray Serve's request router ----------------------------------------------------------------------------------------


@dataclass(eq=False)
class FakeReplica:
    """A stand-in for a replica that accepts any request and reports an empty queue."""

    replica_id: ReplicaID
    max_ongoing_requests: int = 10
    node_id: str = "node"
    multiplexed_model_ids: frozenset[str] = frozenset()

    async def get_queue_len(self, *, deadline_s: float) -> int:
        return 0


DEPLOYMENT = DeploymentID(name="Llm", app_name="app")


def _replica(name: str) -> FakeReplica:
    return FakeReplica(ReplicaID(name, deployment_id=DEPLOYMENT))


def _router() -> AvoidingRouter:
    return AvoidingRouter(DEPLOYMENT, DeploymentHandleSource.REPLICA, use_replica_queue_len_cache=True)


def _pending(route: ReplicaRoute | None, request_id: str = "one") -> PendingRequest:
    metadata = RequestMetadata(request_id=request_id, internal_request_id=request_id)
    return PendingRequest(args=["payload", *([route] if route else [])], kwargs={}, metadata=metadata)


def test_the_overridden_methods_of_the_request_router_exist() -> None:
    """Serve's router still has every method and attribute that `RouterInternals` overrides or calls."""
    for name in (
        "_choose_replica_for_request",
        "_get_pending_request_matching_internal_request_id",
        "_cancel_routing_task_for_pending_request",
        "_remove_pending_request_from_indices",
    ):
        assert callable(vars(RequestRouter)[name]), name
    assert list(inspect.signature(RequestRouter._choose_replica_for_request).parameters) == [
        *("self", "pending_request", "is_retry")
    ]


async def test_a_call_gets_its_replica() -> None:
    """A router that runs without Ray sends a call to the only allowed replica, through the overridden methods."""
    router = _router()
    assert router.deployment == "Llm"
    router.update_replicas([_replica("a"), _replica("b")])
    async with asyncio.timeout(WITHIN_S):
        chosen = await router._choose_replica_for_request(_pending(ReplicaRoute("r", avoid=frozenset({"a"}))))
    assert chosen.replica_id.unique_id == "b"


async def test_a_call_for_one_replica_goes_there_or_fails() -> None:
    """A probe or a question names its replica. It never reaches another one, and fails at once if its replica is gone.

    Before, a probe of a host that knew few of the replicas went to any of the others.
    """
    router = _router()
    router.update_replicas([_replica(name) for name in "abcdefgh"])
    async with asyncio.timeout(WITHIN_S):
        for _ in range(5):
            route = ReplicaRoute("r", avoid=frozenset({"e"}), only="e")
            chosen = await router._choose_replica_for_request(_pending(route))
            assert chosen.replica_id.unique_id == "e"
        with pytest.raises(NoReplicaAvailable):
            await router._choose_replica_for_request(_pending(ReplicaRoute("r", only="gone")))


async def test_two_calls_with_one_request_id_both_get_a_replica() -> None:
    """Two calls that one connection makes at once share an internal request id, and both get a replica."""
    router = _router()
    calls = [_pending(ReplicaRoute(f"r{number}")) for number in range(2)]
    waiting = [asyncio.create_task(router._choose_replica_for_request(call)) for call in calls]
    await asyncio.sleep(0)
    assert router.waiting_requests() == tuple(calls)
    router.update_replicas([_replica("a")])
    async with asyncio.timeout(WITHIN_S):
        assert [replica.replica_id.unique_id for replica in await asyncio.gather(*waiting)] == ["a", "a"]


async def test_waiting_calls_fail_when_the_last_replica_is_gone() -> None:
    """A strict call that waits, and a call that comes later, both fail at once; new replicas serve calls again."""
    router = _router()
    router.update_replicas([_replica("a")])
    strict = ReplicaRoute("r", avoid=frozenset({"a"}), strict=True)
    waiting = asyncio.create_task(router._choose_replica_for_request(_pending(strict)))
    await asyncio.sleep(0.01)
    assert len(router.waiting_requests()) == 1
    router.update_replicas([])
    async with asyncio.timeout(WITHIN_S):
        with pytest.raises(NoReplicaAvailable):
            await waiting
        with pytest.raises(NoReplicaAvailable):
            await router._choose_replica_for_request(_pending(ReplicaRoute("s")))
        router.update_replicas([_replica("b")])
        chosen = await router._choose_replica_for_request(_pending(ReplicaRoute("t")))
    assert chosen.replica_id.unique_id == "b"


# -- Ray Serve's handles -----------------------------------------------------------------------------------------------


@dataclass
class FakeResult:
    """A stand-in for Serve's `ReplicaResult` that answers, fails, or hangs until it is cancelled."""

    answer: object = None
    hangs: bool = False
    cancelled: bool = False

    async def get_async(self) -> object:
        if self.hangs:
            await asyncio.Event().wait()
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def cancel(self) -> None:
        self.cancelled = True


@pytest.mark.parametrize("kind", [DeploymentResponse, DeploymentResponseGenerator])
async def test_a_call_that_is_assigned_but_not_awaited_is_cancelled(kind: type) -> None:
    """If a call has a replica but is not awaited yet, `cancel_request` cancels it. Serve's own `cancel` does not."""
    metadata = RequestMetadata(
        request_id="r", internal_request_id="r", is_streaming=kind is DeploymentResponseGenerator
    )
    for cancel, expected in ((lambda response: response.cancel(), False), (compat.cancel_request, True)):
        result, assignment = FakeResult(), asyncio.get_running_loop().create_future()
        assignment.set_result(result)
        cancel(kind(assignment, metadata, _is_router_running_in_separate_loop=False))
        assert result.cancelled is expected


@pytest.mark.parametrize("outcome", ["unassigned", "failed"])
async def test_a_call_without_a_replica_is_cancelled(outcome: str) -> None:
    """`cancel_request` cancels a call that waits for a replica. For a call that found none it does nothing."""
    metadata = RequestMetadata(request_id="r", internal_request_id="r")
    assignment: asyncio.Future[object] = asyncio.get_running_loop().create_future()
    if outcome == "failed":
        assignment.set_exception(RuntimeError("no replica"))
    compat.cancel_request(DeploymentResponse(assignment, metadata, _is_router_running_in_separate_loop=False))
    assert assignment.cancelled() is (outcome == "unassigned")


@dataclass
class FakeHandle:
    """A stand-in for a deployment handle. Its broadcast returns `results`, one for each replica.

    If `found` is False, the broadcast waits forever, as if Serve did not find the replicas.
    """

    results: list[FakeResult]
    found: bool = True
    methods: list[str] = field(default_factory=list)

    def broadcast(self, method: str) -> DeploymentBroadcastResponse:
        self.methods.append(method)

        async def sent() -> list[FakeResult]:
            if not self.found:
                await asyncio.Event().wait()
            return self.results

        return DeploymentBroadcastResponse(sent(), asyncio.get_running_loop())


async def test_a_broadcast_returns_the_answers_that_come_in_time() -> None:
    """`broadcast` omits a replica that hangs and a replica that fails, and cancels the hanging call."""
    hanging = FakeResult(hangs=True)
    handle = FakeHandle([FakeResult("a"), hanging, FakeResult(ValueError("broken")), FakeResult("b")])
    assert await compat.broadcast(handle, "describe", 0.05) == ["a", "b"]
    assert handle.methods == ["describe"]
    assert [result.cancelled for result in handle.results] == [False, True, False, False]


async def test_a_broadcast_to_no_replica_is_empty() -> None:
    """If every replica died while Serve sent the call, `broadcast` returns an empty list."""
    assert await compat.broadcast(FakeHandle([]), "describe", 0.05) == []


async def test_a_broadcast_without_a_list_of_replicas_times_out() -> None:
    """If Serve does not find the replicas in time, `broadcast` raises TimeoutError."""
    with pytest.raises(TimeoutError):
        await compat.broadcast(FakeHandle([], found=False), "describe", 0.05)


def test_the_broadcast_interface_has_its_shape() -> None:
    """`DeploymentHandle.broadcast` still returns a result per replica that can be awaited and cancelled."""
    assert inspect.signature(DeploymentHandle.broadcast).return_annotation is DeploymentBroadcastResponse
    assert {"get_async", "cancel"} <= ReplicaResult.__abstractmethods__


def test_the_client_of_serve_has_its_shape() -> None:
    """`_get_global_client` still takes `raise_if_no_controller_running`, and its client has the HTTP address."""
    assert "raise_if_no_controller_running" in inspect.signature(_get_global_client).parameters
    assert isinstance(inspect.getattr_static(ServeControllerClient, "http_config"), property)
    assert {"host", "port"} <= HTTPOptions.model_fields.keys()


def test_the_address_is_the_one_of_the_running_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    """`serve_address` returns the host and port of the client's options, and None if Serve does not run."""

    @dataclass
    class Client:
        http_config: HTTPOptions

    monkeypatch.setattr(compat, "_get_global_client", lambda **_: Client(HTTPOptions(host="10.0.0.1", port=8123)))
    assert compat.serve_address() == ("10.0.0.1", 8123)
    monkeypatch.setattr(compat, "_get_global_client", lambda **_: None)
    assert compat.serve_address() is None


def test_ray_still_takes_a_temporary_directory() -> None:
    """`ray.init` still documents `_temp_dir`, with which the tests marked `ray` start Ray."""
    assert "_temp_dir" in (inspect.getdoc(ray.init) or "")


# -- uvicorn and websockets --------------------------------------------------------------------------------------------


def test_the_overridden_methods_of_uvicorn_exist() -> None:
    """uvicorn's WebSocket protocol still has every method and attribute that `UvicornWebSocket` overrides or uses.

    `tests/deployments/transports/test_call_protocol.py` tests their behaviour.
    """
    for name in (
        *("shutdown", "handle_connect", "handle_parser_exception", "send_receive_event_to_app"),
        *("keepalive_timeout", "send", "connection_lost"),
    ):
        assert callable(vars(WebSocketsSansIOProtocol)[name]), name
    config = uvicorn.Config(lambda *_: None)
    connection = compat.UvicornWebSocket(config, uvicorn.server.ServerState(), {}, asyncio.new_event_loop())
    for name in (
        *("handshake_initiated", "handshake_complete", "close_sent", "read_paused", "close_timer", "disconnected"),
        *("queue", "transport", "conn", "loop"),
    ):
        assert hasattr(connection, name), name
    connection.loop.close()
    assert not connection.upgrade_requested
    assert not connection.handshake_answered
    assert not connection.closing


def test_uvicorn_uses_the_installed_protocol(monkeypatch: pytest.MonkeyPatch) -> None:
    """After `install`, a server with the default `ws="auto"`, as Serve starts it, uses `CallProtocol`."""
    monkeypatch.setattr(auto, "AutoWebSocketsProtocol", auto.AutoWebSocketsProtocol)
    call_protocol.install()
    config = uvicorn.Config(lambda *_: None)
    config.load()
    protocol: Any = config.ws_protocol_class
    assert protocol.func is call_protocol.CallProtocol


@pytest.mark.parametrize("size", [0, 1, 4, 1000])
def test_the_mask_is_the_one_of_the_standard(size: int) -> None:
    """`apply_mask` in C returns the same bytes as in Python, and applying a WebSocket mask twice restores the data."""
    data, mask = bytes(index % 251 for index in range(size)), b"\x01\x80\xff\x00"
    masked = compat.apply_mask(data, mask)
    assert masked == apply_mask_in_python(data, mask)
    assert compat.apply_mask(masked, mask) == data


# -- OpenAI's client ---------------------------------------------------------------------------------------------------


async def test_a_ping_goes_to_the_connection_of_the_client() -> None:
    """The OpenAI client keeps its websockets connection in `_connection`, and `ping` returns the pong's delay."""

    class Socket:
        async def ping(self) -> asyncio.Future[float]:
            pong = asyncio.get_running_loop().create_future()
            pong.set_result(0.25)
            return pong

    assert "_connection" in AsyncRealtimeConnection.__annotations__
    assert await ping(AsyncRealtimeConnection(Socket())) == 0.25  # type: ignore[arg-type]  # a stand-in


# -- Ray's client of the Global Control Service ------------------------------------------------------------------------


@dataclass
class FakeGcs:
    """Stand-in for the client of Ray's GCS: it has `nodes`, and records those to drain in `asked`.

    Draining fails with the reason `refusal`, if there is one.
    """

    nodes: dict[ray.NodeID, object] = field(default_factory=dict)
    refusal: str = ""
    asked: list[tuple[object, ...]] = field(default_factory=list)

    def get_all_node_info(self) -> dict[ray.NodeID, object]:
        return self.nodes

    def drain_node(self, *request: object) -> tuple[bool, str]:
        self.asked.append(request)
        return not self.refusal, self.refusal


def test_the_client_of_ray_takes_what_we_pass() -> None:
    """Ray's command `ray drain-node` creates and calls the GCS client in the way that `compat.drain_ray_node` does.

    If a new version of Ray changes these calls, this test fails.
    """
    source = inspect.getsource(scripts.drain_node.callback)
    assert "ray._raylet.GcsClient(address=address)" in source
    assert "gcs_client.drain_node(\n        node_id,\n" in source
    assert "deadline_timestamp_ms" in source


def test_nodes_are_listed_by_their_id(monkeypatch: pytest.MonkeyPatch) -> None:
    """`ray_nodes` returns each node's id in hexadecimal digits with Ray's entry."""
    node = ray.NodeID.from_random()
    monkeypatch.setattr(compat, "GcsClient", lambda address: FakeGcs({node: "entry"}))
    assert compat.ray_nodes("head:6379") == [(node.hex(), "entry")]


@pytest.mark.parametrize("refusal", ["", "the node is the head"])
def test_draining_states_the_reason_and_the_deadline(monkeypatch: pytest.MonkeyPatch, refusal: str) -> None:
    """`drain_ray_node` passes the node, the reason "preemption" and the deadline in ms, and returns Ray's refusal."""
    gcs = FakeGcs(refusal=refusal)
    monkeypatch.setattr(compat, "GcsClient", lambda address: gcs)
    monkeypatch.setattr(time, "time", lambda: 1000.0)
    assert compat.drain_ray_node("head:6379", "ab12", 90.0) == refusal
    node, reason, _, deadline_ms = gcs.asked[0]
    assert (node, reason, deadline_ms) == ("ab12", 2, 1_090_000)


def test_a_machine_is_taken_out_of_a_running_launcher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A provider that Ray's launcher has made before sees only the machines that `set_launcher_machines` lists."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    listed = {"type": "local", "head_ip": "10.0.0.1", "worker_ips": ["10.0.0.2", "10.0.0.3"]}
    provider = LocalNodeProvider(listed, "voice")
    compat.set_launcher_machines("voice", {**listed, "worker_ips": ["10.0.0.3"]})
    assert set(provider.state.get()) == {"10.0.0.1", "10.0.0.3"}


# -- Private names are used in the compat modules only ---------------------------------------------------------------

PRODUCT = ("actors", "cluster", "deployments", "loadtest", "rejoinder")
COMPAT = {"deployments.serving.compat", "loadtest.callers.compat", "deployments.transports.webrtc.aiortc_internals"}
# Modules whose names have no underscore, but which their packages do not document.
UNDOCUMENTED = ("ray.serve.context", "uvicorn.protocols", "websockets.speedups", "websockets.utils")


DOCUMENTED = frozenset({"os._exit"})
"""Names with a leading underscore that the standard library documents."""


def private_uses(module: Module) -> Iterator[str]:
    """Yield each private name of a third-party package that a module imports, reads or passes as a keyword.

    An attribute with a leading underscore counts as third-party unless a class body or an assignment of the same module
    defines it.
    """
    own = _own_attributes(module.tree)
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            names = []
        for name in names:
            internal = any(name == known or name.startswith(f"{known}.") for known in UNDOCUMENTED)
            if name.split(".")[0] not in PRODUCT and (internal or any(map(_private, name.split(".")))):
                yield f"{module.at(node)} imports {name}"
        documented = isinstance(node, ast.Attribute) and ast.unparse(node) in DOCUMENTED
        if isinstance(node, ast.Attribute) and _private(node.attr) and node.attr not in own and not documented:
            yield f"{module.at(node)} uses {ast.unparse(node)}"
        if isinstance(node, ast.Call):
            for keyword in node.keywords:
                if keyword.arg and _private(keyword.arg):
                    yield f"{module.at(node)} passes {keyword.arg}"


def _private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def _own_attributes(tree: ast.Module) -> set[str]:
    own = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)}
    for cls in (node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)):
        for statement in cls.body:
            if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
                own.add(statement.name)
            if isinstance(statement, ast.AnnAssign | ast.Assign):
                targets = [statement.target] if isinstance(statement, ast.AnnAssign) else statement.targets
                own |= {target.id for target in targets if isinstance(target, ast.Name)}
    return own


def test_private_names_are_used_in_the_compat_modules_only() -> None:
    """No module of the product except the two compat modules uses a private name of a third-party package."""
    modules = [module for module in repository() if module.name.split(".")[0] in PRODUCT]
    assert {module.name for module in modules} > COMPAT
    found = [use for module in modules if module.name not in COMPAT for use in private_uses(module)]
    assert not found, "\n" + "\n".join(found)


@pytest.mark.parametrize(
    "source",
    [
        "import _thread",
        "import ray._private.services",
        "from ray.serve._private.common import ReplicaID",
        "from ray.serve.context import _get_global_client",
        "from ray.serve import context",
        "from uvicorn.protocols.websockets import auto",
        "from websockets.speedups import apply_mask",
        "import ray\nray._private.worker",
        "def f(response):\n    return response._replica_result_future",
        "class A(Router):\n    def f(self):\n        self._pending.clear()",
        "def _x(): ...\ndef f(connection):\n    return connection._x",
        "ray.init(_temp_dir='/tmp')",
    ],
)
def test_a_private_use_is_found(source: str) -> None:
    """`private_uses` reports imports, attributes and keyword arguments with private names of other packages."""
    assert list(private_uses(sample("deployments/x.py", source)))


@pytest.mark.parametrize(
    "source",
    [
        "from __future__ import annotations",
        "from deployments.serving.router import _route",
        "import ray\nray.init(address='auto')",
        "class A:\n    _x: int\n    def _f(self):\n        self._y = self._x\n        return self._f() + self._y",
        "from dataclasses import dataclass\nx.__class__",
    ],
)
def test_no_other_use_is_reported(source: str) -> None:
    """`private_uses` does not report documented modules, private names of this repository and dunder names."""
    assert not list(private_uses(sample("deployments/x.py", source)))
