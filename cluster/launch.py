"""`rejoinder serve`: start or join a Ray cluster, deploy the application, and remove both at the end.

A cluster that this module started is stopped. A cluster that it joined keeps running without the application, and keeps
Ray Serve if Serve ran there before.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from cluster.environment import REQUIRED, SINGLE_MACHINE, free_port, node_environment
from cluster.yaml_file import read_yaml
from rejoinder.core.errors import BackendError, ConfigError
from rejoinder.core.settings.serve_file import ServeFile, parse_serve_file

OBJECT_STORE_BYTES = 200 * 1024 * 1024
"""Size of Ray's object store. Only Ray itself uses it: our messages are below Ray's inline limit or use gRPC."""

POLL_S = 0.5
READY_TIMEOUT_S = 600.0
INGRESS_TIMEOUT_S = 60.0

Answer = TypeVar("Answer")


def read_config(path: Path | None) -> ServeFile:
    """Return a validated `ray_config.yaml`; the defaults if `path` is None.

    Raises:
        ConfigError: The file cannot be read, is not YAML, or has an invalid field.
    """
    if path is None:
        return ServeFile()
    return parse_serve_file(read_yaml(path))


@dataclass(frozen=True, slots=True)
class LaunchProgress:
    """State of the starting deployments: by name, the status, the number of running replicas and of all replicas."""

    deployments: dict[str, tuple[str, int, int]] = field(default_factory=dict)


@contextlib.contextmanager
def cluster(address: str, runtime_env: Mapping[str, Any] | None = None) -> Iterator[bool]:
    """Connect to a Ray cluster while the context is open; yield True if it was started here.

    Args:
        address: "local" starts a head. "auto" joins RAY_ADDRESS or the cluster on this machine, or starts a head if
            there is none. HOST:PORT joins that cluster.
        runtime_env: Ray's `runtime_env` of the workers, such as environment variables.

    Raises:
        ConfigError: No cluster answers at the address, or one of its nodes cannot run Rejoinder.
    """
    target = _resolved(address)
    if target != "local" and _join(target, runtime_env):
        try:
            _check_nodes()
            yield False
        finally:
            _leave()
    elif target in ("auto", "local"):
        with _own_head(runtime_env):
            yield True
    else:
        remedy = "Start one with `ray start --head`, or use `--address local` to start one here."
        raise ConfigError(f"no Ray cluster answers at {target}.", remedy, field="--address")


@contextlib.contextmanager
def joined(address: str) -> Iterator[None]:
    """Connect to a running cluster while the context is open.

    Raises:
        ConfigError: No cluster answers at `address`, or one of its nodes cannot run Rejoinder.
    """
    target = _resolved(address)
    if target == "local" or not _join(target, None):
        remedy = "Start one with `ray start --head`, or leave --address out to check this machine."
        raise ConfigError(f"no Ray cluster answers at {target}.", remedy, field="--address")
    try:
        _check_nodes()
        yield
    finally:
        _leave()


def live_nodes() -> list[Mapping[str, Any]]:
    """Return the entries of `ray.nodes()` for the live nodes of the joined cluster."""
    import ray

    return [node for node in ray.nodes() if node["Alive"]]


def _resolved(address: str) -> str:
    return address if address != "auto" else os.environ.get("RAY_ADDRESS") or "auto"


def _join(address: str, runtime_env: Mapping[str, Any] | None) -> bool:
    os.environ.update(REQUIRED)
    import ray

    try:
        ray.init(address=address, runtime_env=dict(runtime_env or {}), log_to_driver=False, logging_level="ERROR")
    except ConnectionError as error:
        if "InvalidAuthToken" in str(error.__cause__):
            raise ConfigError(
                f"the cluster at {address} requires a token.",
                "Set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN unless the token is in ~/.ray/auth_token.",
                field="--address",
            ) from error
        return False
    return True


def _leave() -> None:
    import ray

    ray.shutdown()


@contextlib.contextmanager
def _own_head(runtime_env: Mapping[str, Any] | None) -> Iterator[None]:
    # Ray creates sockets here, whose paths are limited to 107 bytes.
    directory = Path(tempfile.mkdtemp(prefix="rj-", dir="/tmp"))
    os.environ.update(node_environment(directory) | SINGLE_MACHINE)
    import ray

    from deployments.serving.compat import start_local_ray

    try:
        start_local_ray(
            directory,
            runtime_env=dict(runtime_env or {}),
            object_store_memory=OBJECT_STORE_BYTES,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
        )
        yield
    finally:
        ray.shutdown()
        shutil.rmtree(directory, ignore_errors=True)


def run_on_each_node(function: Callable[[], Answer]) -> list[tuple[str, Answer]]:
    """Call a function on every live node of the joined cluster.

    Return pairs of a node's name and the function's result.

    Raises:
        ConfigError: A node does not answer within 60 s.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    task, answers = ray.remote(num_cpus=0)(function), []
    for node in live_nodes():
        strategy = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        name = node["NodeManagerHostname"]
        try:
            answers.append((name, ray.get(task.options(scheduling_strategy=strategy).remote(), timeout=60)))
        except ray.exceptions.RayError as error:
            remedy = "Wait until Ray has removed it, or restart it."
            raise ConfigError(f"node {name} does not answer.", remedy, field="--address") from error
    return answers


def _check_nodes() -> None:
    """Raise ConfigError for a node that cannot run the application, with what it lacks and the fix."""

    def inspect() -> dict[str, str]:
        import importlib.util

        variables = {name: os.environ.get(name, "") for name in REQUIRED}
        missing = [name for name in ("rejoinder", "deployments") if importlib.util.find_spec(name) is None]
        return variables | {"missing": ", ".join(missing)}

    for name, state in run_on_each_node(inspect):
        if state["missing"]:
            raise ConfigError(
                f"node {name} cannot import {state['missing']}.",
                "Install the checkout in that node's environment, or set runtime_env.working_dir to it.",
                field="--address",
            )
        for variable, value in REQUIRED.items():
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
        ConfigError: Serve runs on another port.
    """
    from ray import serve
    from ray.serve.config import HTTPOptions

    from deployments.app import bind
    from deployments.serving.compat import serve_http_port

    running = serve_http_port()
    options = config.http_options
    port = options.port or running or free_port()
    if running not in (None, port):
        remedy = f"Use that port (`--port {running}`), or stop the Serve that runs there."
        raise ConfigError(f"Serve on this cluster listens on port {running}.", remedy, field="http_options.port")
    serve.start(
        proxy_location=config.proxy_location,
        http_options=HTTPOptions(host=options.host, port=port, keep_alive_timeout_s=options.keep_alive_timeout_s),
        logging_config=config.logging_config.model_dump(),
    )
    app = config.application
    try:
        _deploy(serve, bind(app.args), app.name, report)
        url = f"http://{options.host}:{port}"
        _await_ingress(url)
        yield url
    finally:
        if running is None and serve.status().applications.keys() <= {app.name}:
            serve.shutdown()
        else:
            # Running conversations may continue until graceful_shutdown_timeout_s. Do not wait for them here.
            with contextlib.suppress(TimeoutError):
                serve.delete(app.name)


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
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"{url.replace('0.0.0.0', '127.0.0.1')}/healthz", timeout=POLL_S * 4):
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
    return " ".join(messages)
