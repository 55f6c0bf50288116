"""Tests of the environment variables of Ray nodes, and of the findings of `rejoinder doctor`."""

from __future__ import annotations

import resource
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from cluster.doctor.examine import examine
from cluster.doctor.finding import Finding, Grade
from cluster.doctor.machine import needed_models
from cluster.environment import (
    FILES_PER_CONNECTION,
    REDISPATCH,
    REQUIRED,
    SINGLE_MACHINE,
    advised,
    first_ephemeral_port,
    free_port,
    node_environment,
    own_head_environment,
)
from cluster.haproxy import BINARY
from rejoinder.core.resilience.redispatch import RETRIES, handshake_retries
from rejoinder.core.settings.serve_file import HttpOptions, ServeFile, parse_serve_file


def _findings(document: ServeFile) -> dict[str, Finding]:
    return {finding.check: finding for finding in examine(document)}


def _at_port(port: int) -> ServeFile:
    return ServeFile(http_options=HttpOptions(port=port))


def test_two_nodes_of_one_machine_share_no_path_and_no_port(tmp_path: Path) -> None:
    """Two Ray nodes on one machine get environment variables with different values for every path and port.

    All other variables are equal.
    """
    one, other = (node_environment(tmp_path / name) for name in ("one", "other"))
    assert one.keys() == other.keys()
    own = {name for name in one if name.endswith(("_PATH", "_LOC", "_BASE", "_FILE", "_PORT"))}
    assert own
    assert {name for name in own if one[name] == other[name]} == set()
    assert {name for name in one if one[name] != other[name]} == own


def test_a_node_has_the_required_environment(tmp_path: Path) -> None:
    """A node that Rejoinder starts has every environment variable that it requires or advises for a cluster.

    It has none of those that are only for a single machine. HAProxy's launcher is one of its own.
    """
    environment = node_environment(tmp_path)
    assert environment.items() >= REQUIRED.items()
    assert environment[BINARY].startswith(str(tmp_path))
    assert (environment | {BINARY: advised().get(BINARY)}).items() >= advised().items()
    assert not SINGLE_MACHINE.keys() & environment.keys()


def test_refused_handshakes_go_to_another_host_if_there_is_one(tmp_path: Path) -> None:
    """A node of a cluster lets HAProxy retry refused handshakes; a machine with a single host does not.

    The single host would get each refused handshake again.
    """
    assert advised().items() >= REDISPATCH.items()
    assert own_head_environment(tmp_path, 2).items() >= (REDISPATCH | SINGLE_MACHINE).items()
    alone = own_head_environment(tmp_path, 1)
    assert not REDISPATCH.keys() & alone.keys()
    assert handshake_retries(own_head_environment(tmp_path, 2)) == int(REDISPATCH[RETRIES])
    assert handshake_retries(alone) == 0


def test_ray_configures_haproxy_by_the_variables() -> None:
    """Ray Serve reads each variable of REDISPATCH, and its HAProxy sends a retried request to another host.

    Both are internals of Ray: the test shows whether another version still has them.
    """
    serve = Path(ray.__file__).parent / "serve" / "_private"
    constants = (serve / "constants.py").read_text(encoding="utf-8")
    template = (serve / "haproxy_templates.py").read_text(encoding="utf-8")
    assert [name for name in REDISPATCH if f'("{name}"' not in constants.replace("(\n    ", "(")] == []
    lines = {line.strip() for line in template.splitlines()}
    assert {"option redispatch 1", "retry-on {{ config.retry_on }}", "retries {{ config.retries }}"} <= lines


def test_socket_paths_fit(tmp_path: Path) -> None:
    """The path of a Unix socket of Ray Serve is at most 107 bytes long, the limit of Linux.

    Ray Serve appends 57 bytes to the paths in Rejoinder's environment variables.
    """
    directory = Path("/tmp/rj-12345678")
    sockets = [value for name, value in node_environment(directory).items() if name.endswith("_SOCKET_PATH")]
    assert sockets
    assert max(len(path) for path in sockets) + 57 <= 107


@pytest.fixture
def few_files() -> Iterator[int]:
    """Limit this process to 1,024 open files during a test, and yield the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
    yield 1024
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_haproxys_connections_fit_its_file_limit() -> None:
    """The maximum of connections that Rejoinder sets for HAProxy fits the limit on open files.

    Otherwise HAProxy would not start.
    """
    _, limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    connections = int(advised()["RAY_SERVE_HAPROXY_MAXCONN"])
    assert limit == resource.RLIM_INFINITY or connections * FILES_PER_CONNECTION <= limit


def test_too_few_files_are_found(few_files: int) -> None:
    """A low limit on open files gives a warning with the command that raises it."""
    found = _findings(_at_port(free_port()))["file descriptors"]
    assert found.grade is Grade.WARN
    assert "ulimit -n" in found.fix


def test_a_taken_port_fails() -> None:
    """The doctor check of the port fails with a fix if the port is in use, and is ok if it is free."""
    with socket.socket() as occupied:
        occupied.bind(("127.0.0.1", 0))
        occupied.listen()
        found = _findings(_at_port(occupied.getsockname()[1]))["port"]
    assert found.grade is Grade.FAIL
    assert "--port 0" in found.fix
    assert _findings(_at_port(free_port()))["port"].grade is Grade.OK


def test_a_missing_model_fails(tmp_path: Path) -> None:
    """With an empty model store, the finding of each needed model fails and names the command that downloads it."""
    models = {"directory": str(tmp_path)}
    document = parse_serve_file({"applications": [{"args": {"models": models}}]})
    found = _findings(document)
    absent = [name for name in needed_models(document) if found[f"model {name}"].grade is Grade.FAIL]
    assert set(absent) >= {"whisper-base", "qwen2.5-coder-0.5b-instruct"}
    assert all("rejoinder models pull" in found[f"model {name}"].fix for name in absent)


def test_only_engines_that_run_here_need_models() -> None:
    """An OpenAI-compatible server needs no local model. The embedding model is for the semantic cache only."""
    llm = {"engine": "openai_api", "base_url": "http://127.0.0.1:8001/v1", "model": "x"}
    assert "x" not in needed_models(parse_serve_file({"applications": [{"args": {"llm": llm}}]}))
    for cache, needed in (({}, False), ({"enabled": True}, True), ({"enabled": True, "semantic": False}, False)):
        document = parse_serve_file({"applications": [{"args": {"answer_cache": cache}}]})
        assert ("all-minilm-l6-v2" in needed_models(document)) is needed


def test_free_ports_are_outside_the_ephemeral_range() -> None:
    """`free_port` returns ports that the kernel never assigns to outgoing connections, and no port twice."""
    found = [free_port() for _ in range(500)]
    assert len(set(found)) == len(found)
    assert 1024 <= min(found) <= max(found) < first_ephemeral_port()


def test_another_package_with_our_name_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If another installed package has the name of one of Rejoinder's packages, doctor reports a failed finding."""
    other = tmp_path / "loadtest"
    other.mkdir()
    (other / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "loadtest", raising=False)
    found = _findings(_at_port(free_port()))["package loadtest"]
    assert found.grade is Grade.FAIL
    assert str(tmp_path) in found.found


def test_only_problems_have_a_fix() -> None:
    """Every finding of doctor that is not ok has a fix, and no other finding has one."""
    for finding in examine(_at_port(free_port())):
        assert bool(finding.fix) == (finding.grade is not Grade.OK), finding
