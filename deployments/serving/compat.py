"""Every use of an undocumented internal of Ray, uvicorn and websockets, in one module.

Each class and function below names the internal that it uses, why the public interface is not enough, and the upstream
issue or source file. The versions in constraints.txt are the ones that these uses were checked against.
`tests/deployments/serving/test_compat.py` has a contract test for each of them, and fails if any other module of the
product imports or reads a private name of a third-party package. (`loadtest/callers/compat.py` does the same for the
load generator, which must not import `deployments`.)

The product uses no internal of picows or starlette. This module imports nothing of ours, so that every other module may
import it.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ray
from ray._private import ray_constants
from ray._private.services import canonicalize_bootstrap_address
from ray._raylet import GcsClient  # type: ignore[attr-defined]  # a compiled module
from ray.autoscaler._private.local.config import get_lock_path, get_state_path
from ray.autoscaler._private.local.node_provider import ClusterState
from ray.core.generated.autoscaler_pb2 import DrainNodeReason
from ray.serve.context import _get_global_client
from ray.serve.handle import DeploymentHandle
from ray.serve.request_router import PendingRequest, RequestRouter, RunningReplica
from uvicorn._types import ASGISendEvent
from uvicorn.config import Config
from uvicorn.protocols.websockets import auto
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame
from websockets.http11 import Request
from websockets.protocol import State

# The C implementation of the masking of RFC 6455, section 5.3. websockets documents neither this module nor its Python
# version (websockets.utils), which takes 25 times as long for a frame of 1 kB.
# Numbers: https://github.com/python-websockets/websockets/pull/1034
# Source: https://github.com/python-websockets/websockets/blob/17.4/src/websockets/speedups.c
from websockets.speedups import apply_mask

__all__ = [
    "RouterInternals",
    "UvicornWebSocket",
    "apply_mask",
    "broadcast",
    "cancel_request",
    "drain_ray_node",
    "local_cluster_address",
    "ray_nodes",
    "serve_address",
    "set_launcher_machines",
    "start_local_ray",
    "use_websocket_protocol",
]

# Time in seconds that a client whose connection failed has to read the close frame.
LINGER_S = 1.0
# Seconds from the handshake to the first ping.
FIRST_PING_S = 1.0
# Close code for a protocol error (RFC 6455, section 7.4.1).
_PROTOCOL_ERROR = 1002


class RouterInternals(RequestRouter):  # type: ignore[misc]  # ray is untyped here
    """Serve's request router with hooks to see, refuse and fail requests that wait for a replica.

    Serve lets a request wait for a replica without a limit: https://github.com/ray-project/ray/issues/40995. The public
    class has no hook for this, as https://github.com/ray-project/ray/issues/63200 describes. So this class overrides
    `_choose_replica_for_request` and uses `_pending_requests_to_fulfill`, `_cancel_routing_task_for_pending_request`,
    `_remove_pending_request_from_indices` and `_deployment_id`.

    It also replaces `_get_pending_request_matching_internal_request_id`. Serve finds a waiting request by its internal
    request id (https://github.com/ray-project/ray/pull/45761). All calls of one WebSocket connection share this id, and
    Serve's index contains only one of these calls. The other calls would wait without end.

    Source: https://github.com/ray-project/ray/blob/ray-2.60.0/python/ray/serve/_private/request_router/request_router.py
    """

    @property
    def deployment(self) -> str:
        """The name of the deployment whose replicas this router chooses from."""
        return str(self._deployment_id.name)

    def waiting_requests(self) -> tuple[PendingRequest, ...]:
        """Return the requests that wait for a replica, oldest first."""
        return tuple(pending for pending in self._pending_requests_to_fulfill if not pending.future.done())

    def fail_request(self, pending: PendingRequest, error: Exception) -> None:
        """Raise `error` in the caller of a request that waits for a replica."""
        self._cancel_routing_task_for_pending_request(pending)
        self._remove_pending_request_from_indices(pending)
        pending.future.set_exception(error)

    def before_routing(self, pending: PendingRequest) -> None:
        """Hook for a subclass: raise an error to refuse a request before it waits for a replica.

        The default does nothing.
        """

    async def _choose_replica_for_request(
        self, pending_request: PendingRequest, *, is_retry: bool = False
    ) -> RunningReplica:
        self.before_routing(pending_request)
        return await super()._choose_replica_for_request(pending_request, is_retry=is_retry)

    def _get_pending_request_matching_internal_request_id(
        self, request_metadata: object = None
    ) -> PendingRequest | None:
        """Return the waiting request that has this metadata object, None if the request no longer waits.

        Requests are compared by object identity, because each request has its own metadata object.
        """
        matching = (pending for pending in self.waiting_requests() if pending.metadata is request_metadata)
        return next(matching, None)


def cancel_request(response: Any) -> None:
    """Cancel a call in its replica, whether the call is waiting, assigned or running.

    `DeploymentResponse.cancel` cancels the assignment to a replica, and the replica's result if the caller has already
    received it. If the router runs on the caller's event loop (RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP=0, which
    RAY_SERVE_THROUGHPUT_OPTIMIZED implies), there is a gap of one loop iteration between the two. A call that is
    cancelled in the gap, about one in several hundred, continues in its replica. This function reads
    `_replica_result_future` to cancel the result in the gap too.

    Upstream: https://github.com/ray-project/ray/issues/52533 (fixed by https://github.com/ray-project/ray/pull/52591,
    but only for a router in a separate loop).

    Args:
        response: What `remote` of a deployment handle returned, unary or streaming.
    """
    response.cancel()
    assignment = response._replica_result_future
    if assignment.done() and not assignment.cancelled() and assignment.exception() is None:
        assignment.result().cancel()


async def broadcast(handle: DeploymentHandle, method: str, timeout_s: float) -> list[Any]:
    """Call a method without arguments on every replica of a deployment, and return the answers that come in time.

    The public `results_async` gathers all answers: one replica that hangs costs the answers of all. The synchronous
    `results` is not allowed on an event loop. This function uses `_fetch_replica_results_async` and waits for each
    replica's result separately. Calls without an answer are cancelled; calls that raise are left out.

    Upstream: https://github.com/ray-project/ray/pull/61472

    Args:
        handle: The deployment.
        method: The name of the method.
        timeout_s: Time in seconds for the replicas to be found and to answer.

    Raises:
        DeploymentUnavailableError: If the deployment has no running replica.
        TimeoutError: If Serve does not say in time which replicas there are.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    async with asyncio.timeout_at(deadline):
        results = await handle.broadcast(method)._fetch_replica_results_async()
    if not results:
        return []
    calls = {asyncio.ensure_future(result.get_async()): result for result in results}
    try:
        await asyncio.wait(calls, timeout=max(0.0, deadline - loop.time()))
        return [call.result() for call in calls if call.done() and not call.cancelled() and call.exception() is None]
    finally:
        for call, result in calls.items():
            if not call.done():
                call.cancel()
                result.cancel()


def serve_address() -> tuple[str, int] | None:
    """Return the HTTP host and port of the Ray Serve that runs on the joined cluster, None if none runs.

    `serve.start` ignores its options if Serve runs already (https://github.com/ray-project/ray/issues/17577), and no
    public function returns the options in use. This one uses `ray.serve.context._get_global_client`. A host uses it to
    learn whether other machines reach it.

    Source: https://github.com/ray-project/ray/blob/ray-2.60.0/python/ray/serve/context.py
    """
    client = _get_global_client(raise_if_no_controller_running=False)
    return None if client is None else (str(client.http_config.host or ""), int(client.http_config.port))


def local_cluster_address() -> str | None:
    """Return the HOST:PORT of a Ray cluster that runs on this machine, None if none runs.

    `ray.init(address="auto")` reads the address from a file, which a killed cluster leaves behind, and then waits a
    minute for an answer. So the address must be known before. This function uses
    `ray._private.services.canonicalize_bootstrap_address`.

    Source: https://github.com/ray-project/ray/blob/ray-2.60.0/python/ray/_private/services.py
    """
    try:
        address = canonicalize_bootstrap_address("auto")
    except ConnectionError:
        return None
    return None if address is None else str(address)


def start_local_ray(temp_dir: Path, *, alone: bool = False, **options: Any) -> None:
    """Start a Ray head on this machine and join it.

    Ray's processes listen on all addresses, and whoever reaches them can run code. If the node's address is the
    loopback address they listen there only, but Ray replaces a loopback address that it is given. So `alone` clears
    `ENABLE_RAY_CLUSTER`, with which Ray runs on systems where it does not support clusters.

    Ray puts Unix sockets below its temporary directory. A path of more than 107 bytes makes it fail
    (https://github.com/ray-project/ray/issues/7724), so the directory must be a short one of our own. `ray.init` takes
    it only as the private `_temp_dir` (renamed in Ray 1.0: https://github.com/ray-project/ray/issues/11556).

    Args:
        temp_dir: The directory for Ray's sockets and logs.
        alone: True if no other machine will join or call. Everything then listens on the loopback address.
        options: Further arguments of `ray.init`.
    """
    if alone:
        os.environ[ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR] = "0"  # for the processes that Ray starts
        ray_constants.ENABLE_RAY_CLUSTER = False
    ray.init(address="local", _temp_dir=str(temp_dir), **options)


def ray_nodes(gcs_address: str) -> list[tuple[str, Any]]:
    """Return the nodes of a Ray cluster, live and dead, without joining the cluster.

    `ray.nodes()` needs a driver on a node of the cluster, which takes seconds to join, and does not say whether a node
    is drained. `ray list nodes` needs the dashboard. Ray's own `ray drain-node` uses this client.

    Source: https://github.com/ray-project/ray/blob/ray-2.60.0/python/ray/scripts/scripts.py

    Args:
        gcs_address: HOST:PORT of the cluster's Global Control Service.

    Returns:
        Pairs of the node's id in hexadecimal digits and its entry, a protobuf message `GcsNodeInfo` of Ray.

    Raises:
        ray.exceptions.RaySystemError: The cluster does not answer, or refuses the token.
    """
    return [(node.hex(), entry) for node, entry in GcsClient(address=gcs_address).get_all_node_info().items()]


def drain_ray_node(gcs_address: str, node_id: str, within_s: float) -> str:
    """Ask Ray to place nothing more on a node and to move its work away. Ray Serve then replaces its replicas.

    Ray offers this only as the undocumented command `ray drain-node`.

    Source: https://github.com/ray-project/ray/blob/ray-2.60.0/python/ray/scripts/scripts.py

    Args:
        gcs_address: HOST:PORT of the cluster's Global Control Service.
        node_id: The node's id in hexadecimal digits.
        within_s: Seconds until the node will be stopped. Serve's replicas on it end before that.

    Returns:
        "" if Ray accepts the request, otherwise why not.
    """
    reason = DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
    deadline_ms = int((time.time() + within_s) * 1000)
    client = GcsClient(address=gcs_address)
    accepted, why = client.drain_node(node_id, reason, "the node is drained", deadline_ms)
    return "" if accepted else str(why)


def set_launcher_machines(cluster: str, provider: Mapping[str, Any]) -> None:
    """Set the machines of a cluster that Ray's autoscaler may start Ray on, in the state file of its provider `local`.

    The autoscaler reads its configuration again all the time, but takes the machines from the file, which it writes
    when it starts. Ray offers no other way to take a machine out of a running cluster: `ray up --no-restart` changes
    the configuration only. The class that writes the file is `ClusterState`; when it is made it deletes machines that
    are not listed and adds the others as stopped. The file is below the process's temporary directory (TMPDIR).

    Source: https://github.com/ray-project/ray/blob/ray-2.60.0/python/ray/autoscaler/_private/local/node_provider.py

    Args:
        cluster: The name of the cluster.
        provider: The section `provider` of the autoscaler's configuration, with `head_ip` and `worker_ips`.
    """
    ClusterState(get_lock_path(cluster), get_state_path(cluster), provider)


class UvicornWebSocket(WebSocketsSansIOProtocol):
    """A WebSocket connection of uvicorn that survives the server's stop, with hooks for a subclass.

    uvicorn closes every WebSocket when it stops (code 1012) and documents no way to prevent it:
    https://github.com/Kludex/uvicorn/pull/1140. It also documents no class to derive from. This class overrides
    `shutdown`, `handle_connect`, `handle_parser_exception`, `start_keepalive`, `handle_pong`, `keepalive_timeout`,
    `send`, `connection_lost` and `send_receive_event_to_app`, and uses the attributes that these methods use.

    uvicorn closes a connection with `transport.close`, which first waits until all written data is sent. For a client
    that does not read this never ends, and neither its socket nor its data is freed. So every end of a connection is
    followed by `transport.abort`.

    Source: https://github.com/Kludex/uvicorn/blob/0.54.0/uvicorn/protocols/websockets/websockets_sansio_impl.py
    """

    def __init__(self, config: Config, *args: Any, **more: Any) -> None:
        super().__init__(config, *args, **more)
        self._failed = False

    @property
    def upgrade_requested(self) -> bool:
        """True after the client's handshake has been read."""
        return self.handshake_initiated

    @property
    def handshake_answered(self) -> bool:
        """True after the application has accepted or refused the connection."""
        return self.handshake_complete

    @property
    def closing(self) -> bool:
        """True after a close frame has been sent."""
        return self.close_sent

    @property
    def failed(self) -> bool:
        """True after the client has broken the protocol. All data that the client sends after that must be ignored."""
        return self._failed

    def on_upgrade(self, extensions: dict[str, Any]) -> None:
        """Hook for a subclass: add entries to `extensions` of the ASGI scope before the application starts.

        The default adds nothing.
        """

    def on_answered(self) -> None:
        """Hook for a subclass: called when the handshake has just been answered.

        The default does nothing.
        """

    def on_message(self) -> None:
        """Hook for a subclass: called when a message is complete, before uvicorn queues it.

        The default does nothing.
        """

    def on_lost(self) -> None:
        """Hook for a subclass: called when the connection has ended.

        The default does nothing.
        """

    def connection_lost(self, exc: Exception | None) -> None:
        """End the connection as uvicorn does, and call `on_lost`."""
        super().connection_lost(exc)
        self.on_lost()

    def on_round_trip(self, seconds: float) -> None:
        """Hook for a subclass: called when the client has answered a ping after `seconds`.

        The default does nothing.
        """

    def on_stop(self) -> None:
        """Hook for a subclass: called when uvicorn stops, because Serve drains this replica.

        The default does nothing.
        """

    def shutdown(self) -> None:
        """Keep the connection open when uvicorn stops, and call `on_stop`. Serve waits until the connection ends."""
        self.on_stop()

    def handle_connect(self, event: Request) -> None:
        """Answer the handshake as uvicorn does, and call `on_upgrade` if it is valid."""
        super().handle_connect(event)
        if self.response.status_code == 101:
            self.on_upgrade(self.scope["extensions"])

    def handle_parser_exception(self) -> None:
        """Send the close frame with its reason, then read and discard for LINGER_S before closing.

        uvicorn closes at once. Closing a socket with unread data resets the connection, and the reason is lost.
        """
        reason = self.conn.close_sent
        code = reason.code if reason else _PROTOCOL_ERROR
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason.reason if reason else ""})
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = self._failed = True
        self.read_paused = False
        self.transport.resume_reading()
        self.abort_after(LINGER_S)

    def refuse(self, code: int, reason: str, last_words: str = "") -> None:
        """Close the connection with a code and a reason, because of what the client sent.

        Args:
            code: Close code of RFC 6455, section 7.4.1.
            reason: Reason in the close frame, at most 123 bytes.
            last_words: Text message to send before the close frame; "" for none.
        """
        if last_words and self.conn.state is State.OPEN:
            self.conn.send_text(last_words.encode())
        self.conn.fail(code, reason)
        self.handle_parser_exception()

    def abort_after(self, seconds: float) -> None:
        """Drop the connection after some seconds, with all data that the client has not read until then."""
        if self.close_timer is not None:
            self.close_timer.cancel()
        self.close_timer = self.loop.call_later(seconds, self.transport.abort)

    def start_keepalive(self) -> None:
        """Send the first ping after FIRST_PING_S, and further ones as uvicorn does, each after `ws_ping_interval`."""
        if self.ping_interval:
            self.ping_timer = self.loop.call_later(FIRST_PING_S, self.send_keepalive_ping)

    def handle_pong(self, event: Frame) -> None:
        """Handle a pong as uvicorn does, and call `on_round_trip` if it answers the ping that was sent last."""
        pending = self.pending_ping_payload
        super().handle_pong(event)
        if pending is not None and self.pending_ping_payload is None:
            self.on_round_trip(self.last_ping_rtt)

    def keepalive_timeout(self) -> None:
        """Close the connection as uvicorn does if the client does not answer a ping, and abort it soon after."""
        super().keepalive_timeout()
        self.abort_after(LINGER_S)

    async def send(self, message: ASGISendEvent) -> None:
        """Send as uvicorn does. Call `on_answered` after the handshake's answer, and bound the wait for a close.

        After `refuse`, the application does not know yet that the connection has ended, and uvicorn would take what it
        sends for a bug. A close is ignored, and anything else ends as if the client were gone.

        Raises:
            OSError: The connection has ended, so the message is not sent.
        """
        if self._failed:
            if message["type"] == "websocket.close":
                return
            raise OSError("the connection was closed because of what the client sent")
        answered, closed = self.handshake_complete, self.close_sent
        await super().send(message)
        if self.handshake_complete and not answered:
            self.on_answered()
        if self.close_sent and not closed and not self.disconnected:
            self.abort_after(self.close_timeout)

    def send_receive_event_to_app(self) -> None:
        """Call `on_message`, then queue the message as uvicorn does."""
        self.on_message()
        super().send_receive_event_to_app()


def use_websocket_protocol(protocol: Callable[..., WebSocketsSansIOProtocol]) -> None:
    """Make `protocol` the WebSocket implementation of every uvicorn server of this process that is started later.

    `protocol` is a class, or a function that takes the same arguments and returns a connection.

    Serve starts the server of a replica itself, with uvicorn's default `ws="auto"`, and offers no option for it.
    uvicorn resolves "auto" to `uvicorn.protocols.websockets.auto.AutoWebSocketsProtocol`, which this function replaces.

    Source: https://github.com/Kludex/uvicorn/blob/0.54.0/uvicorn/config.py
    """
    auto.AutoWebSocketsProtocol = protocol
