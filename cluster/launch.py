"""`rejoinder serve`: a cluster of our own or one that runs, the application on it, and an orderly end.

What was started here is stopped here, and nothing else: a joined cluster keeps running without our application, and
keeps Serve if Serve ran before.
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

import yaml

from cluster.environment import ALONE, REQUIRED, free_port, node_environment
from rejoinder.core.errors import BackendError, ConfigError
from rejoinder.core.settings.serve_file import ServeFile, parse_serve_file

OBJECT_STORE_BYTES = 200 * 1024 * 1024
"""Our messages stay below Ray's 100 KB inline limit or travel by gRPC; the store holds only what Ray itself puts
there.
"""

POLL_S = 0.5
READY_TIMEOUT_S = 600.0
INGRESS_TIMEOUT_S = 60.0

Answer = TypeVar("Answer")


def read_config(path: Path | None) -> ServeFile:
    """A validated `ray_config.yaml`; None gives the defaults. Raises ConfigError naming the field, or the file."""
    if path is None:
        return ServeFile()
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot be read ({error.strerror}).", "Name an existing file.", field=str(path)) from error
    except yaml.YAMLError as error:
        raise ConfigError("is not YAML.", " ".join(str(error).split()), field=str(path)) from error
    return parse_serve_file(document)


@dataclass(frozen=True, slots=True)
class LaunchProgress:
    """One look at the deployments while they start: name to (status, running, wanted)."""

    deployments: dict[str, tuple[str, int, int]] = field(default_factory=dict)


@contextlib.contextmanager
def cluster(address: str, runtime_env: Mapping[str, Any] | None = None) -> Iterator[bool]:
    """A connected Ray, whose workers get `runtime_env`; yields whether it is our own.

    `address`: "local" starts our own head; "auto" joins RAY_ADDRESS or the cluster that runs on this machine, and
    starts our own head if there is none; anything else must answer.
    """
    found = _resolved(address)
    if found != "local" and _join(found, runtime_env):
        try:
            _check_nodes()
            yield False
        finally:
            _leave()
    elif found in ("auto", "local"):
        with _own_head(runtime_env):
            yield True
    else:
        remedy = "Start one with `ray start --head`, or use `--address local` for a head of our own."
        raise ConfigError(f"no Ray cluster answers at {found}.", remedy, field="--address")


@contextlib.contextmanager
def joined(address: str) -> Iterator[None]:
    """A connection to a cluster that runs, and on which the application could; raises ConfigError if there is none."""
    found = _resolved(address)
    if found == "local" or not _join(found, None):
        remedy = "Start one with `ray start --head`, or leave --address out to look at this machine."
        raise ConfigError(f"no Ray cluster answers at {found}.", remedy, field="--address")
    try:
        _check_nodes()
        yield
    finally:
        _leave()


def live_nodes() -> list[Mapping[str, Any]]:
    """What Ray says of each node of the joined cluster that lives."""
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
                f"the cluster at {address} wants a token.",
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
    # Ray puts sockets here, whose paths may not exceed 107 bytes.
    directory = Path(tempfile.mkdtemp(prefix="rj-", dir="/tmp"))
    os.environ.update(node_environment(directory) | ALONE)
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


def on_each_node(ask: Callable[[], Answer]) -> list[tuple[str, Answer]]:
    """What `ask` returns on every live node of the joined cluster, with the node's name; raises ConfigError for a node
    that does not answer.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    task, answers = ray.remote(num_cpus=0)(ask), []
    for node in live_nodes():
        strategy = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        name = node["NodeManagerHostname"]
        try:
            answers.append((name, ray.get(task.options(scheduling_strategy=strategy).remote(), timeout=60)))
        except ray.exceptions.RayError as error:
            remedy = "Wait until Ray has dropped it, or restart it."
            raise ConfigError(f"node {name} does not answer.", remedy, field="--address") from error
    return answers


def _check_nodes() -> None:
    """Refuse a cluster on which the application could not run, naming the node, what it lacks and the fix."""

    def look() -> dict[str, str]:
        import importlib.util

        found = {name: os.environ.get(name, "") for name in REQUIRED}
        missing = [name for name in ("rejoinder", "deployments") if importlib.util.find_spec(name) is None]
        return found | {"missing": ", ".join(missing)}

    for name, found in on_each_node(look):
        if found["missing"]:
            raise ConfigError(
                f"node {name} cannot import {found['missing']}.",
                "Install rejoinder in that node's environment, or make the checkout its working_dir.",
                field="--address",
            )
        for variable, wanted in REQUIRED.items():
            if found[variable] != wanted:
                raise ConfigError(
                    f"node {name} runs without {variable}={wanted}.",
                    f"Restart it as `{variable}={wanted} ray start ...` (all: rejoinder doctor --environment).",
                    field="--address",
                )


@contextlib.contextmanager
def application(config: ServeFile, report: Callable[[LaunchProgress], None]) -> Iterator[str]:
    """The application, deployed and healthy; yields its base URL. Raises BackendError when it cannot start."""
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
            # Conversations under way may go on for their grace period; we do not wait that long.
            with contextlib.suppress(TimeoutError):
                serve.delete(app.name)


def _deploy(serve: Any, app: Any, name: str, report: Callable[[LaunchProgress], None]) -> None:
    fault: list[BaseException] = []

    def run() -> None:
        try:
            serve.run(app, name=name, route_prefix="/", blocking=False)
        except BaseException as error:  # noqa: BLE001  # handed to the caller's thread below
            fault.append(error)

    thread = threading.Thread(target=run, name="deploy", daemon=True)
    thread.start()
    deadline = time.monotonic() + READY_TIMEOUT_S
    while thread.is_alive():
        thread.join(POLL_S)
        report(_progress(serve, name))
        if time.monotonic() > deadline:
            raise BackendError(f"not healthy after {READY_TIMEOUT_S:.0f} s.", "See `serve status` and the logs.")
    if fault:
        raise BackendError(f"the application did not start: {_why(serve, name) or fault[0]}") from fault[0]


def _await_ingress(url: str) -> None:
    """Until HAProxy brings requests to a host: it learns of one a moment after Serve calls the application ready."""
    deadline = time.monotonic() + INGRESS_TIMEOUT_S
    found = "no answer"
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"{url.replace('0.0.0.0', '127.0.0.1')}/healthz", timeout=POLL_S * 4):
                return
        except OSError as error:  # HTTPError is one too
            found = str(error)
        time.sleep(POLL_S / 5)
    raise BackendError(f"{url}/healthz: {found}.", "See `rejoinder doctor` and Serve's logs of HAProxy.")


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


def _why(serve: Any, name: str) -> str:
    app = serve.status().applications.get(name)
    if app is None:
        return ""
    messages = [state.message for state in app.deployments.values() if state.message] or [app.message]
    return " ".join(messages)
