"""`rejoinder serve`: start or join a Ray cluster, deploy the application, and remove both at the end.

A cluster that this module started is stopped. A cluster that it joined keeps running without the application, and keeps
Ray Serve if Serve ran there before. Every step of the end has a time limit: what Ray does not stop is killed, if it was
started here.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import ssl
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, cast

import grpc

from cluster.environment import REQUIRED, free_port, own_head_environment
from cluster.fitting import demands, misfits, offers
from cluster.haproxy import write_launcher
from cluster.head_watch import Head, HeadLost, OwnProcesses, RemoteGcs, within
from cluster.leftovers import NODE_FOLDER, NodeGuard, end, processes_of, write_owner
from cluster.listeners import check_port
from rejoinder.core.errors import BackendError, ConfigError
from rejoinder.core.settings.serve_file import ServeFile

OBJECT_STORE_BYTES = 200 * 1024 * 1024
"""Size of Ray's object store. Only Ray itself uses it: our messages are below Ray's inline limit or use gRPC."""

RAY_FOLDER = "r"
"""Name of Ray's own folder within the folder of a node that `rejoinder serve` starts."""

POLL_S = 0.5
READY_TIMEOUT_S = 600.0
INGRESS_TIMEOUT_S = 60.0
CONNECT_TIMEOUT_S = 5.0
"""Seconds that the head of a cluster has to answer."""
REMOVE_S = 30.0
"""Seconds that Serve has to remove the application, and Ray to end its processes, before they are killed."""

MAX_CAUSE = 400
"""Characters of a cause that are printed."""

_TYPED_ERROR = re.compile(r"^(?:\w+\.)*rejoinder\.core\.errors\.\w+: (.+)$", re.MULTILINE)

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class LaunchProgress:
    """State of the starting deployments: by name, the status, the number of running replicas and of all replicas."""

    deployments: dict[str, tuple[str, int, int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Connection:
    """The connection of this process to a Ray cluster.

    Attributes:
        own: True if the cluster was started here.
        head: The cluster's head, for `head_watch.await_end`.
    """

    own: bool
    head: Head


@contextlib.contextmanager
def cluster(
    address: str,
    runtime_env: Mapping[str, Any] | None = None,
    *,
    hosts: int = 1,
    entry: Mapping[str, str] | None = None,
    alone: bool = False,
) -> Iterator[Connection]:
    """Connect to a Ray cluster while the context is open; yield the connection.

    Args:
        address: "local" starts a head. "auto" joins RAY_ADDRESS or the cluster on this machine, or starts a head if
            there is none. HOST:PORT joins that cluster.
        runtime_env: Ray's `runtime_env` of the workers, such as environment variables.
        hosts: Maximum number of session hosts. HAProxy of a head that is started tries several of them for a handshake.
        entry: Variables of HAProxy (`entry_variables`). A head that is started gets them. The nodes of a cluster that
            is joined must have them already.
        alone: True if only programs of this machine call. Ray of a head that is started then listens on the loopback
            address only, and so do the metrics of the replicas.

    Raises:
        ConfigError: No cluster answers at the address, or one of its nodes cannot run Rejoinder.
        HeadLost: The cluster that was started here did not stop in time, so its processes were killed.
    """
    target, field = _resolved(address)
    if target != "local" and _join(target, runtime_env, field):
        try:
            _check_nodes(entry or {})
            yield Connection(own=False, head=RemoteGcs(_gcs_address()))
        finally:
            _leave()
    elif target in ("auto", "local"):
        with _own_head(runtime_env, hosts, entry or {}, alone=alone):
            yield Connection(own=True, head=OwnProcesses())
    else:
        remedy = "Start one with `ray start --head`, or use `--address local` to start one here."
        raise ConfigError(f"no Ray cluster answers at {target}.", remedy, field=field)


@contextlib.contextmanager
def joined(address: str) -> Iterator[None]:
    """Connect to a running cluster while the context is open.

    Raises:
        ConfigError: No cluster answers at `address`, or one of its nodes cannot run Rejoinder.
    """
    target, field = _resolved(address)
    if target == "local" or not _join(target, None, field):
        remedy = "Start one with `ray start --head`, or leave --address out to check this machine."
        raise ConfigError(f"no Ray cluster answers at {target}.", remedy, field=field)
    try:
        _check_nodes({})
        yield
    finally:
        _leave()


def live_nodes() -> list[Mapping[str, Any]]:
    """Return the entries of `ray.nodes()` for the live nodes of the joined cluster."""
    import ray

    return [node for node in ray.nodes() if node["Alive"]]


def _resolved(address: str) -> tuple[str, str]:
    """Return the cluster's address, and the option or variable that names it: "auto" becomes RAY_ADDRESS if it is set.

    Raises:
        ConfigError: The address is neither "auto" nor "local" nor HOST:PORT.
    """
    variable = os.environ.get("RAY_ADDRESS") if address == "auto" else None
    target, field = (variable, "RAY_ADDRESS") if variable else (address, "--address")
    host, _, port = target.rpartition(":")
    if target not in ("auto", "local") and not (host and "/" not in host and port.isdecimal() and int(port) < 65536):
        remedy = "Write auto, local or HOST:PORT with the port of `ray start --port`, by default 6379."
        raise ConfigError(f"{target!r} is not the address of a Ray cluster.", remedy, field=field)
    return target, field


def _answers(address: str) -> bool:
    """Return True if a gRPC server answers at HOST:PORT. If none does, `ray.init` waits there for a minute and more."""
    if os.environ.get("RAY_USE_TLS", "0") != "0":
        return True  # the certificates are Ray's business
    with grpc.insecure_channel(address) as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=CONNECT_TIMEOUT_S)
        except grpc.FutureTimeoutError:
            return False
    return True


def _join(address: str, runtime_env: Mapping[str, Any] | None, field: str) -> bool:
    """Join the cluster at `address`, and return False if there is none.

    Raises:
        ConfigError: The cluster needs a token, or runs another version of Ray or Python.
    """
    os.environ.update(REQUIRED)
    import ray

    from deployments.serving.compat import local_cluster_address

    known = local_cluster_address() if address == "auto" else address
    if known is None or not _answers(known):
        return False
    try:
        ray.init(address=known, runtime_env=dict(runtime_env or {}), log_to_driver=False, logging_level="ERROR")
    except ConnectionError as error:
        if "InvalidAuthToken" in str(error.__cause__):
            raise ConfigError(
                f"the cluster at {known} requires a token.",
                "Set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN unless the token is in ~/.ray/auth_token.",
                field=field,
            ) from error
        return False
    except RuntimeError as error:
        mismatch = version_error(known, field, error)
        if mismatch is None:
            raise
        raise mismatch from error
    return True


def version_error(address: str, field: str, error: RuntimeError) -> ConfigError | None:
    """Return the error for a cluster with another Ray or Python than this process; None if Ray's `error` is another.

    Args:
        address: Address of the cluster.
        field: Option or variable that names it.
        error: Ray's error.
    """
    pairs = re.findall(r"Ray: (\S+)\s+Python: (\S+)", str(error))
    if "Version mismatch" not in str(error) or not pairs:
        return None
    versions = ", here ".join(f"Ray {ray} and Python {python}" for ray, python in pairs)
    return ConfigError(
        f"the cluster at {address} has another version than this environment: {versions}.",
        "Install the same Ray and the same Python, patch release included, on every node and here.",
        field=field,
    )


def _gcs_address() -> str:
    import ray

    return str(ray.get_runtime_context().gcs_address)


def _leave() -> None:
    import ray

    within(REMOVE_S, ray.shutdown)


@contextlib.contextmanager
def _own_head(
    runtime_env: Mapping[str, Any] | None, hosts: int, entry: Mapping[str, str], *, alone: bool
) -> Iterator[None]:
    # Ray creates sockets below this folder, whose paths are limited to 107 bytes. Only this user may enter it: HAProxy
    # lets everyone who reaches its admin socket stop the servers, and Ray lets everyone read its logs. Ray opens the
    # folder that it gets to all users, so it gets one inside.
    directory = Path(tempfile.mkdtemp(prefix=NODE_FOLDER, dir="/tmp"))
    write_owner(directory)
    write_launcher(directory)
    guard = NodeGuard()
    os.environ.update({**own_head_environment(directory, hosts), **entry})
    import ray

    from deployments.serving.compat import start_local_ray

    try:
        start_local_ray(
            directory / RAY_FOLDER,
            alone=alone,
            runtime_env=dict(runtime_env or {}),
            object_store_memory=OBJECT_STORE_BYTES,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
        )
        yield
    except HeadLost:
        _kill_node(directory, guard)
        raise
    except BaseException:
        within(REMOVE_S, ray.shutdown)
        _kill_node(directory, guard)
        raise
    orderly = within(REMOVE_S, ray.shutdown)
    _kill_node(directory, guard)
    if not orderly:
        raise HeadLost(f"Ray did not stop within {REMOVE_S:.0f} s, so its processes were killed.")


def _kill_node(directory: Path, guard: NodeGuard) -> None:
    """End what is left of a node that was started here, and delete its folder."""
    end(processes_of(directory))
    shutil.rmtree(directory, ignore_errors=True)
    guard.release()


def run_on_node(node: Mapping[str, Any], function: Callable[[], Answer]) -> Answer:
    """Call a function on a node of the joined cluster, an entry of `ray.nodes()`, and return its result.

    Raises:
        ConfigError: The node does not answer within 60 s, or cannot import what the function needs.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    strategy = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
    task = ray.remote(num_cpus=0)(lambda: function()).options(scheduling_strategy=strategy)  # partials are refused
    try:
        return cast(Answer, ray.get(task.remote(), timeout=60))
    except ray.exceptions.RayError as error:
        message = f"node {node['NodeManagerHostname']} does not answer: {application_error(str(error))}"
        raise ConfigError(message, "Wait until Ray has removed it, or restart it.", field="--address") from error


def serve_port() -> int | None:
    """Return the HTTP port of the Ray Serve that runs on the joined cluster, None if none runs."""
    from deployments.serving.compat import serve_address

    address = serve_address()
    return None if address is None else address[1]


def _check_nodes(entry: Mapping[str, str]) -> None:
    """Raise ConfigError for a node that cannot run the application, with what it lacks and the fix.

    `entry` has the variables of HAProxy that the settings ask for.
    """
    required = {**REQUIRED, **entry}

    def inspect() -> dict[str, str]:
        import importlib.util

        variables = {name: os.environ.get(name, "") for name in required}
        missing = [name for name in ("rejoinder", "deployments") if importlib.util.find_spec(name) is None]
        return variables | {"missing": ", ".join(missing)}

    for node in live_nodes():
        name, state = node["NodeManagerHostname"], run_on_node(node, inspect)
        if state["missing"]:
            raise ConfigError(
                f"node {name} cannot import {state['missing']}.",
                "Install the checkout in that node's environment, or set runtime_env.working_dir to it.",
                field="--address",
            )
        for variable, value in required.items():
            if state[variable] != value:
                raise ConfigError(
                    f"node {name} runs without {variable}={value}.",
                    f"Restart it as `{variable}={value} ray start ...` (all: rejoinder doctor --environment).",
                    field="--address",
                )


@contextlib.contextmanager
def application(config: ServeFile, report: Callable[[LaunchProgress], None]) -> Iterator[str]:
    """Deploy the application and yield its base URL (http) once it is healthy; remove it at the end.

    Args:
        config: The validated `ray_config.yaml`.
        report: Receives the progress twice a second while the deployments start.

    Raises:
        BackendError: The application did not become healthy.
        ConfigError: Serve runs on another port, the application runs already, the port cannot be used, or the replicas
            do not fit on the nodes.
        HeadLost: Raised by the block if Ray's head is gone. Serve is then not asked to remove the application.
    """
    from ray import serve
    from ray.serve.config import HTTPOptions

    from deployments.app import bind

    running = serve_port()
    options = config.http_options
    port = options.port or running or free_port()
    tls = config.application.args.tls
    if running not in (None, port):
        remedy = f"Use that port (`--port {running}`), or stop the Serve that runs there."
        raise ConfigError(f"Serve on this cluster listens on port {running}.", remedy, field="http_options.port")
    app = config.application
    if running is None:
        check_port(options.host, port, "http_options.port")
    elif app.name in serve.status().applications:
        remedy = "Stop it first, or add `--address local --port 0` to start another cluster beside it."
        raise ConfigError(f"the application {app.name} already runs on this cluster.", remedy, field="--address")
    for error in misfits(demands(app.args), offers(live_nodes())):
        raise error
    serve.start(
        proxy_location=config.proxy_location,
        http_options=HTTPOptions(host=options.host, port=port, keep_alive_timeout_s=options.keep_alive_timeout_s),
        logging_config=config.logging_config.model_dump(),
    )
    try:
        _deploy(serve, bind(app.args), app.name, report)
        url = f"https://{options.host}:{tls.port or port}" if tls.certificate else f"http://{options.host}:{port}"
        _await_ingress(url)
        yield url
    except HeadLost:
        raise
    except BaseException:
        within(REMOVE_S, lambda: _remove(serve, app.name, running is None))
        raise
    within(REMOVE_S, lambda: _remove(serve, app.name, running is None))


def _remove(serve: Any, name: str, own: bool) -> None:
    """Remove the application, and Serve too if it was started here (`own`) and has no other application."""
    if own and serve.status().applications.keys() <= {name}:
        # Serve's controller kills itself before it has answered. Ray prints this as a failure to this process's stdout.
        with contextlib.redirect_stdout(None):
            serve.shutdown()
    else:
        # Running conversations may continue until graceful_shutdown_timeout_s. Do not wait for them here.
        with contextlib.suppress(TimeoutError):
            serve.delete(name)


def _deploy(serve: Any, app: Any, name: str, report: Callable[[LaunchProgress], None]) -> None:
    errors: list[BaseException] = []

    def run() -> None:
        try:
            serve.run(app, name=name, route_prefix="/", blocking=False)
        except BaseException as error:  # noqa: BLE001  # handed to the caller's thread below
            errors.append(error)

    thread = threading.Thread(target=run, name="deploy", daemon=True)
    thread.start()
    deadline = time.monotonic() + READY_TIMEOUT_S
    while thread.is_alive():
        thread.join(POLL_S)
        report(_progress(serve, name))
        if time.monotonic() > deadline:
            raise BackendError(f"not healthy after {READY_TIMEOUT_S:.0f} s.", "See `serve status` and Serve's logs.")
    if errors:
        raise BackendError(f"the application did not start: {_status_messages(serve, name) or errors[0]}") from errors[
            0
        ]


def _await_ingress(url: str) -> None:
    """Wait until HAProxy routes requests to a host, which is a moment after Serve reports the application as ready."""
    deadline = time.monotonic() + INGRESS_TIMEOUT_S
    failure = "no answer"
    # It is our own server at a loopback address, for which its certificate need not be.
    unchecked = ssl.create_default_context()
    unchecked.check_hostname, unchecked.verify_mode = False, ssl.CERT_NONE
    while time.monotonic() < deadline:
        try:
            address = f"{url.replace('0.0.0.0', '127.0.0.1')}/healthz"
            with urllib.request.urlopen(address, timeout=POLL_S * 4, context=unchecked):
                return
        except OSError as error:  # HTTPError is an OSError
            failure = str(error)
        time.sleep(POLL_S / 5)
    raise BackendError(f"{url}/healthz: {failure}.", "See `rejoinder doctor` and Serve's logs of HAProxy.")


def _progress(serve: Any, name: str) -> LaunchProgress:
    app = serve.status().applications.get(name)
    if app is None:
        return LaunchProgress()
    return LaunchProgress(
        {
            deployment: (
                str(state.status.value),
                int(state.replica_states.get("RUNNING", 0)),
                sum(int(count) for count in state.replica_states.values()),
            )
            for deployment, state in app.deployments.items()
        }
    )


def _status_messages(serve: Any, name: str) -> str:
    app = serve.status().applications.get(name)
    if app is None:
        return ""
    messages = [state.message for state in app.deployments.values() if state.message] or [app.message]
    return " ".join(application_error(message) for message in messages)


def application_error(message: str) -> str:
    """Return the cause in a status message of Ray Serve, which has one or more tracebacks.

    It is the text of the last typed error of this project, otherwise the last line, shortened.
    """
    typed = _TYPED_ERROR.findall(message)
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    text = typed[-1] if typed else lines[-1] if lines else ""
    return text if len(text) <= MAX_CAUSE else f"{text[:MAX_CAUSE]} ..."
