"""Tests of the files for machines: `ray start` scripts, systemd units, and the cluster file of Ray's launcher."""

from __future__ import annotations

import configparser
import itertools
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.description.launch_description import parse_description
from cluster.description.ports import PortPlan
from cluster.environment import max_connections
from cluster.haproxy import BINARY, CERTIFICATE, METRICS_HOST
from cluster.rendering.node_plan import plan_nodes
from cluster.rendering.rendered_file import write_files
from cluster.rendering.targets import render_files
from rejoinder.core.errors import ConfigError
from tests.cluster.launching.rendering import PODS, launch, machines, rendered

NAMES = sorted(PODS)
SCRIPTS = ("start-ray.sh", "install.sh", "start-node.sh")


@pytest.fixture
def folder() -> Iterator[Path]:
    """Return a new folder with a short path, as a description requires for the state of a node."""
    path = Path(tempfile.mkdtemp(prefix="rjl-", dir="/tmp"))
    yield path
    shutil.rmtree(path)


def written(folder: Path, description: dict[str, Any], target: Any) -> Path:
    """Render a description for a target into a folder, with a fake `ray` in a fake virtual environment.

    The fake prints its arguments, then every environment variable. Return the folder with the rendered files.
    """
    own = {
        "checkout": str(folder),
        "virtualenv": f"{folder}/venv",
        "state": f"{folder}/state",
        "secrets_file": f"{folder}/secrets.env",
        "ssh_user": "voice",
    }
    programs = folder / "venv" / "bin"
    programs.mkdir(parents=True)
    for name in ("ray", "serve"):
        (programs / name).write_text('#!/bin/sh\nfor one in "$@"; do echo "$one"; done\nenv\n', encoding="utf-8")
        (programs / name).chmod(0o755)
    out = folder / "out"
    write_files(render_files(launch({**description, "machines": own}), target, out), out)
    return out


def test_ray_s_ports_are_those_of_the_description() -> None:
    """Each port of the description stands in the command or environment of the head.

    The exceptions are the port of Serve, which is in the serve profile, the one of TLS, which this description has not,
    and the kernel's range.
    """
    description = parse_description(machines("cpu-cluster"))
    head = plan_nodes(description)[0]
    text = " ".join((*head.start, *head.environment.values()))
    expected = {
        number
        for name, ports in description.ports.ranges()
        if name not in ("http", "https", "ephemeral")
        for number in (ports.first, ports.last)
    }
    assert expected <= {int(number) for number in re.findall(r"\d+", text)}
    options = {option.split("=")[0] for option in head.start[2:]}
    assert {
        "--port",
        "--node-manager-port",
        "--object-manager-port",
        "--min-worker-port",
        "--max-worker-port",
    } <= options


def test_every_port_option_of_ray_is_used() -> None:
    """Every option of `ray start` for a port that a node of this kind opens is given, so that none is random."""
    from ray.scripts.scripts import start

    known = {name for option in start.params for name in option.opts if name.endswith("-port")}
    used = {option.split("=")[0] for option in plan_nodes(parse_description(machines("cpu-cluster")))[0].start}
    assert known - used == set()


def test_workers_join_the_head() -> None:
    """The head starts first and alone with --head; every other node joins its address, with its group's labels."""
    head, *others = plan_nodes(parse_description(machines("gpu-cluster")))
    assert (head.is_head, "--head" in head.start) == (True, True)
    assert [node.name for node in others] == ["gpu-1", "gpu-2", "gpu-3"]
    for node in others:
        assert f"--address={head.address}:{PortPlan().gcs}" in node.start
        assert "--labels=group=gpu,region=eu,ray.io/accelerator-type=L4" in node.start
        assert "--num-gpus=1" in node.start


def test_a_host_name_is_not_ray_s_node_address() -> None:
    """A machine that is named instead of numbered joins under the address that Ray finds by itself."""
    named = machines("cpu-cluster")
    named["groups"][1]["addresses"] = ["worker-a.example.com"]
    worker = plan_nodes(parse_description(named))[1]
    assert not any(option.startswith("--node-ip-address") for option in worker.start)


@pytest.mark.parametrize(("name", "target"), [*itertools.product(NAMES, ["bare", "ray-up"])])
def test_the_scripts_are_shell(folder: Path, name: str, target: str) -> None:
    """Every rendered script is executable and is accepted by the shell's parser."""
    scripts = [path for path in written(folder, machines(name), target).rglob("*.sh") if path.name in SCRIPTS]
    assert scripts
    for script in scripts:
        assert os.access(script, os.X_OK)
        subprocess.run(["sh", "-n", str(script)], check=True)


def test_a_start_script_starts_ray_with_its_environment(folder: Path) -> None:
    """The script of a node runs `ray start` with its options, the variables of the node and the secrets of the file."""
    description = {**machines("gpu-cluster"), "environment": {"GREETING": 'hello $HOME "you" \\ %n'}}
    out = written(folder, description, "bare")
    (folder / "secrets.env").write_text("REJOINDER_API_KEYS=a,b\nHF_TOKEN=c\nRAY_AUTH_TOKEN=d\n", encoding="utf-8")
    lines = _run(out / "nodes" / "gpu-2" / "start-ray.sh", "--block").stdout.splitlines()
    plan = plan_nodes(launch({**description, "machines": {"state": f"{folder}/state"}}).description)[2]
    assert lines[: len(plan.start)] == [*plan.start[1:-2], f"--temp-dir={folder}/state/ray", plan.start[-1], "--block"]
    expected = plan.environment | {"RAY_SERVE_HAPROXY_MAXCONN": str(max_connections())}
    expected[BINARY] = f"{folder}/venv/bin/rejoinder-haproxy"
    assert {f"{name}={value}" for name, value in expected.items()} <= set(lines)
    assert {"REJOINDER_API_KEYS=a,b", "HF_TOKEN=c", "RAY_AUTH_TOKEN=d"} <= set(lines)
    assert f"TMPDIR={folder}/state/tmp" in lines
    assert (folder / "state" / "tmp").is_dir()
    assert (folder / "state" / "haproxy").is_dir()


def test_few_open_files_mean_few_connections(folder: Path) -> None:
    """If the user may open only 4,000 files, HAProxy gets the connections that these suffice for, and a line says so.

    With more, HAProxy would not start.
    """
    out = written(folder, {**machines("cpu-cluster"), "secrets": []}, "bare")
    script = str(out / "nodes" / "head-1" / "start-ray.sh")
    done = subprocess.run(["prlimit", "--nofile=4000:4000", script], capture_output=True, text=True, check=True)
    assert "RAY_SERVE_HAPROXY_MAXCONN=1200" in done.stdout.splitlines()
    assert "4000 open files allow 1200 connections (65536 are advised)" in done.stderr


def test_haproxy_s_sockets_have_short_paths() -> None:
    """In the longest folder that `state` may name, the paths of HAProxy's sockets have at most 97 characters.

    Serve puts a folder named after the node's id before the last part of each path.
    """
    longest = "/" + "s" * 24
    node = plan_nodes(parse_description(machines("cpu-cluster") | {"machines": {"state": longest}}))[0]
    for variable in ("RAY_SERVE_HAPROXY_SOCKET_PATH", "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH"):
        path = Path(node.environment[variable])
        assert path.is_relative_to(longest)
        assert len(str(path.parent / ("f" * 56) / path.name)) <= 97
    with pytest.raises(ConfigError, match=r"machines\.state"):
        parse_description(machines("cpu-cluster") | {"machines": {"state": f"{longest}s"}})


def test_a_missing_secret_is_named(folder: Path) -> None:
    """A start script without the value of a secret starts nothing, and names the variable and the file."""
    out = written(folder, machines("gpu-cluster"), "bare")
    (folder / "secrets.env").write_text("REJOINDER_API_KEYS=a\nHF_TOKEN=c\n", encoding="utf-8")
    done = _run(out / "nodes" / "head-1" / "start-ray.sh", check=False)
    assert (done.returncode != 0, done.stdout) == (True, "")
    assert f"write RAY_AUTH_TOKEN=... to {folder}/secrets.env" in done.stderr


def _run(script: Path, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [script, *arguments], capture_output=True, text=True, check=check, env={"PATH": "/usr/bin:/bin"}
    )


@pytest.mark.parametrize("name", NAMES)
def test_the_units_are_complete(folder: Path, name: str) -> None:
    """Each node has a unit for Ray, and the head one for the application, with limits and user.

    The unit runs the node's start script where `install.sh` puts it, so it has the script's environment, temporary
    folder and number of connections. It makes the script's folders as root, because the script may not.
    """
    out = written(folder, machines(name), "bare")
    description = launch({**machines(name), "machines": {"state": f"{folder}/state"}}).description
    for node in plan_nodes(description):
        units = {path.name for path in (out / "nodes" / node.name).glob("*.service")}
        assert units == {"rejoinder-ray.service"} | ({"rejoinder-serve.service"} if node.is_head else set())
        unit = _unit(out / "nodes" / node.name / "rejoinder-ray.service")
        assert unit["Service"]["User"] == "voice"
        assert int(unit["Service"]["LimitNOFILE"]) >= 51_000  # HAProxy's 20,000 connections
        shell, program, *options = unit["Service"]["ExecStart"].split()
        install = (out / "nodes" / node.name / "install.sh").read_text(encoding="utf-8").splitlines()
        assert f"install -m 755 start-ray.sh {program}" in install
        assert f"install -D -m 644 ray.env {Path(program).parent}/ray.env" in install
        assert (shell, options) == ("/bin/sh", ["--block"])
        script = (out / "nodes" / node.name / "start-ray.sh").read_text(encoding="utf-8")
        (made,) = re.findall(r"^mkdir -p (.*)$", script, re.MULTILINE)
        assert set(made.split()) <= set(unit["Service"]["ExecStartPre"].split())


def _unit(path: Path) -> configparser.RawConfigParser:
    """Return a systemd unit, of whose repeated keys the last value."""
    parser = configparser.RawConfigParser(strict=False, comment_prefixes=("#",))
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # documented way to keep upper case
    parser.read_string(path.read_text(encoding="utf-8"))
    return parser


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="left out: systemd-analyze is not installed")
def test_systemd_accepts_the_units(folder: Path) -> None:
    """`systemd-analyze verify` finds nothing wrong with the units, and finds a wrong line in one."""
    out = written(folder, machines("gpu-cluster"), "bare")
    units = [str(path) for path in (out / "nodes" / "head-1").glob("*.service")]
    done = subprocess.run(["systemd-analyze", "verify", *units], capture_output=True, text=True, check=False)
    ours = [line for line in done.stderr.splitlines() if "rejoinder" in line]
    assert (done.returncode, ours) == (0, [])
    wrong = folder / "rejoinder-wrong.service"
    wrong.write_text(Path(units[0]).read_text(encoding="utf-8").replace("Restart=", "Restrat="), encoding="utf-8")
    done = subprocess.run(["systemd-analyze", "verify", str(wrong)], capture_output=True, text=True, check=False)
    assert "Restrat" in done.stderr


@pytest.mark.parametrize("name", NAMES)
def test_ray_accepts_the_cluster_file(name: str) -> None:
    """Ray's own validator accepts `cluster.yaml`, and prepares it with all machines as workers of its one kind."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    description = machines(name)
    document = yaml.safe_load(rendered(description, "ray-up")["cluster.yaml"])
    prepared = prepare_config(document)
    validate_config(prepared)
    (kind,) = prepared["available_node_types"].values()
    assert kind["min_workers"] == kind["max_workers"] == sum(len(one["addresses"]) for one in description["groups"]) - 1
    assert prepared["provider"]["head_ip"] == "10.0.0.1"


def test_ray_s_validator_finds_a_mistake() -> None:
    """An unknown key in `cluster.yaml` is refused, so that the test above can fail."""
    from jsonschema import ValidationError
    from ray.autoscaler._private.util import prepare_config, validate_config

    document = yaml.safe_load(rendered(machines("cpu-cluster"), "ray-up")["cluster.yaml"])
    with pytest.raises(ValidationError):
        validate_config(prepare_config({**document, "setup_command": []}))


def test_a_machine_finds_its_own_node(folder: Path) -> None:
    """`start-node.sh` runs the script of the node with one of this machine's addresses, and passes on its options.

    On a machine that is not in the description it starts nothing.
    """
    here = subprocess.run(["hostname", "-I"], capture_output=True, text=True, check=True).stdout.split()
    description = {**machines("cpu-cluster"), "token": False, "secrets": []}
    name = here[0] if here else subprocess.run(["hostname"], capture_output=True, text=True, check=True).stdout.strip()
    description["groups"][1]["addresses"][1] = name
    out = written(folder, description, "ray-up")
    lines = _run(out / "launch" / "start-node.sh", "--more").stdout.splitlines()
    own = [f"--node-ip-address={here[0]}"] if here else []
    assert [line for line in lines if line.startswith("--node-ip-address")] == own
    assert not any("--node-name" in line for line in lines)  # HAProxy would take the name for an address
    assert "--more" in lines
    shutil.rmtree(folder / "venv")
    elsewhere = written(folder, {**machines("cpu-cluster"), "token": False}, "ray-up")
    done = _run(elsewhere / "launch" / "start-node.sh", check=False)
    assert (done.returncode, "is in the launch description" in done.stderr) == (1, True)


def test_ray_up_copies_the_folder_from_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cluster file names the rendered folder by its absolute path, because `ray up` may run anywhere."""
    monkeypatch.chdir(tmp_path)
    document = yaml.safe_load(rendered(machines("cpu-cluster"), "ray-up", Path("out"))["cluster.yaml"])
    assert document["file_mounts"] == {"~/rejoinder-launch": str(tmp_path / "out" / "launch")}


def test_pods_are_no_machines() -> None:
    """A description of pods is refused for machines, with the group and the fix."""
    with pytest.raises(ConfigError, match="Add addresses, or render it for Kubernetes"):
        plan_nodes(parse_description(PODS["cpu-cluster"]))


def test_haproxy_on_a_machine_shows_its_metrics_to_the_network_only_there() -> None:
    """Each machine's HAProxy serves its metrics on the machine's own address, and TLS with the files that are named."""
    nodes = plan_nodes(parse_description(machines("gpu-cluster")))
    assert {node.environment[METRICS_HOST] for node in nodes} == {node.address for node in nodes}
    assert {node.environment[CERTIFICATE] for node in nodes} == {"/etc/rejoinder/tls/tls.crt"}
    assert {node.environment[BINARY] for node in nodes} == {"/opt/rejoinder/.venv/bin/rejoinder-haproxy"}
    assert CERTIFICATE not in plan_nodes(parse_description(machines("cpu-cluster")))[0].environment
