"""Starts Ray with Ray's cluster launcher: `ray up` starts the head, whose autoscaler starts the other machines.

The autoscaler is why a drained machine must be taken out of its list, and why the head stops first. `ray up` keeps its
state in a folder of this computer that is deleted afterwards, so it can be run from any computer, and clusters of the
same name do not collide. What lasts is on the head. `ray down` is not used: it stops Ray on the head only, and leaves
all files.
"""

from __future__ import annotations

import getpass
import hashlib
import os
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath

from cluster.nodes import NodeState
from cluster.operating.machines import FOLDER, LaunchedMachines
from cluster.operating.shown_command import run_shown
from cluster.rendering.node_plan import NodePlan
from cluster.rendering.ray_up import COPIED, SECRETS, node_files, render_ray_up
from cluster.rendering.rendered_file import RenderedFile, write_files
from rejoinder.core.errors import BackendError, ConfigError

RAY = Path(sys.executable).with_name("ray")
UP_S = 600.0
"""Longest duration of `ray up`, in seconds."""
JOIN_S = 300.0
"""Longest time in seconds that the autoscaler has to start Ray on the other machines."""
POLL_S = 2.0
CLOSE_S = 5.0
BOOTSTRAP = ("ray_bootstrap_config.yaml", "ray_bootstrap_key.pem")
"""Files that `ray up` copies to the head's home folder: the autoscaler's configuration, and the SSH key."""
_USEFUL_COMMANDS = "Useful commands"
"""Beginning of the last part of the output of `ray up`. Its commands name a file that is deleted."""


class RayUpStarter:
    """Starts Ray with Ray's cluster launcher. Its autoscaler starts a worker again about 30 s after it has died."""

    def __init__(self, machines: LaunchedMachines) -> None:
        self._machines = machines
        self._settings = machines.launch.description.machines

    # -- start ---------------------------------------------------------------------------------------------------------

    def start(self, running: set[str]) -> None:
        """Run `ray up` unless the head runs, and wait for the other machines (see `Starter.start`)."""
        machines = self._machines
        for program in ("ssh", "rsync"):
            if shutil.which(program) is None:
                raise ConfigError(
                    f"`ray up` needs {program} on this computer.", f"Install {program}.", field="--target"
                )
        machines.each(machines.nodes, self._check)
        if machines.head.address in running:
            machines.remote.write(machines.head.address, FOLDER, self._files())
            self._change_workers("add", [node.address for node in machines.nodes[1:]])
        else:
            self._ray_up()
        self._await_workers()

    def _check(self, node: NodePlan) -> None:
        """Check what `ray up` needs on a machine, because it would try for many minutes to start Ray without it."""
        description, machines = self._machines.launch.description, self._settings
        remedy = f"set it here, or write it to {machines.secrets_file}."
        lines = [
            f'[ -x "{machines.virtualenv}/bin/ray" ] || fail "{machines.virtualenv} has no Ray: install it there."',
            f'if [ -d "{machines.state}" ]; then [ -w "{machines.state}" ]; '
            f'else mkdir -p "{machines.state}" 2>/dev/null && rmdir "{machines.state}"; fi || '
            f'fail "{machines.state} cannot be written: create it for the user {machines.ssh_user}."',
            'command -v rsync >/dev/null || fail "rsync is missing: install the package rsync."',
            f'if [ -r "{machines.secrets_file}" ]; then . "{machines.secrets_file}"; fi',
            *[f'[ -n "${{{name}:-}}" ] || fail "{name} is missing: {remedy}"' for name in description.secret_variables],
        ]
        script = ['fail() { echo "$1" >&2; exit 1; }', *lines]
        self._machines.remote.run(node.address, "\n".join(script) + "\n")

    def _files(self) -> list[RenderedFile]:
        """Return the files of the nodes, with the secret variables that are known here."""
        lines = [f"{name}={shlex.quote(value)}\n" for name, value in self._machines.secrets.items()]
        return [*node_files(self._machines.launch), RenderedFile(SECRETS, "".join(lines), private=True)]

    def _ray_up(self) -> None:
        head = self._machines.head
        self._machines.report(f"{head.name}: running `ray up` for {head.address}")
        with tempfile.TemporaryDirectory(prefix="rejoinder-launch-") as name:  # only its owner can read it
            folder = Path(name)
            write_files(render_ray_up(self._machines.launch, folder), folder)
            write_files(self._files(), folder / COPIED)
            words = [str(RAY), "up", "--yes", "--no-config-cache", "--log-style", "pretty", "--log-color", "false"]
            useful = False

            def show(line: str) -> None:
                nonlocal useful
                useful = useful or line.startswith(_USEFUL_COMMANDS)
                if not useful:
                    self._machines.report(f"  {line}")

            try:
                run_shown([*words, str(folder / "cluster.yaml")], self._environment(folder), show, timeout_s=UP_S)
            except BackendError as error:
                raise BackendError(
                    f"{head.name}: {error.message}", "Read the output above; then run `rejoinder launch down`."
                ) from None
            finally:
                self._close_connections()

    def _environment(self, folder: Path) -> dict[str, str]:
        """Return the environment of `ray up`: its state is in `folder`, and it has no secret variables."""
        hidden = {"RAY_TMPDIR", *self._machines.launch.description.secret_variables}
        kept = {name: value for name, value in os.environ.items() if name not in hidden}
        own = {"TMPDIR": str(folder), "RAY_USAGE_STATS_ENABLED": "0", "RAY_UP_enable_autoscaler_v2": "0"}
        return kept | own

    def _close_connections(self) -> None:
        """End the SSH connection that `ray up` keeps open for 10 s after its end, and delete its folder."""
        folder = connection_folder(self._machines.launch.description.name, getpass.getuser())
        with suppress(OSError):
            address = socket.gethostbyname(self._settings.external_head or self._machines.head.address)
            target = f"{self._settings.ssh_user}@{address}"
            subprocess.run(
                ["ssh", "-O", "exit", "-o", f"ControlPath={folder}/%C", target], capture_output=True, timeout=10
            )
            # `ssh` answers before the process that holds the connection has deleted its socket.
            deadline = time.monotonic() + CLOSE_S
            while any(Path(folder).iterdir()) and time.monotonic() < deadline:
                time.sleep(0.1)
            os.rmdir(folder)  # fails while another `ray up` uses it
            os.rmdir(folder.parent)

    def _await_workers(self) -> None:
        machines = self._machines
        deadline = time.monotonic() + JOIN_S
        waiting = list(machines.nodes[1:])
        while waiting:
            alive = {node.address for node in machines.view() if node.state is NodeState.ALIVE}
            for node in [node for node in waiting if node.address in alive]:
                machines.report(f"{node.name}: Ray runs on {node.address}")
                waiting.remove(node)
            if waiting and time.monotonic() > deadline:
                names = ", ".join(node.name for node in waiting)
                raise BackendError(
                    f"{names}: the head has not started Ray there within {JOIN_S:g} s.",
                    f"Read {self._settings.state}/ray/session_latest/logs/monitor.out on {machines.head.address}. "
                    f"The head must reach the machines over SSH.",
                )
            time.sleep(POLL_S if waiting else 0)

    # -- stop ----------------------------------------------------------------------------------------------------------

    def forget(self, node: NodePlan) -> None:
        """Take a machine out of the autoscaler's list (see `Starter.forget`)."""
        self._change_workers("remove", [node.address])

    def _change_workers(self, action: str, addresses: Sequence[str]) -> None:
        machines = self._machines
        module = f'TMPDIR="{machines.head.state}/tmp" python -m cluster.operating.autoscaler_workers'
        machines.run(machines.head, f'{module} "$HOME/{BOOTSTRAP[0]}" {action} {" ".join(addresses)}')

    def stop_order(self) -> Sequence[Sequence[NodePlan]]:
        """Return the head before the others, which its autoscaler would start again (see `Starter.stop_order`)."""
        return self._machines.nodes[:1], self._machines.nodes[1:]

    def removal(self, node: NodePlan) -> Sequence[str]:
        """Return lines for the head: delete the SSH key and the autoscaler's files (see `Starter.removal`)."""
        if not node.is_head:
            return ()
        folder = connection_folder(self._machines.launch.description.name, self._settings.ssh_user)
        return (
            f"pkill -KILL -f '[s]sh: {folder}/' || true",
            " ".join(["rm -rf", str(folder), *[f'"$HOME/{name}"' for name in BOOTSTRAP]]),
            f'rmdir "{folder.parent}" 2>/dev/null || true',
        )


def connection_folder(cluster: str, user: str) -> PurePosixPath:
    """Return the folder in which Ray's launcher keeps the sockets of its open SSH connections.

    Args:
        cluster: Name of the cluster.
        user: Name of the user as which the launcher runs.
    """
    # Source: SSHCommandRunner in
    # https://github.com/ray-project/ray/blob/ray-2.60.0/python/ray/autoscaler/_private/command_runner.py
    owner, own = (hashlib.sha256(text.encode()).hexdigest()[:10] for text in (user, cluster))
    return PurePosixPath(f"/tmp/ray_ssh_{owner}/{own}")
