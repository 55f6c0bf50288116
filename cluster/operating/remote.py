"""Commands on the machines of a launch description, over SSH."""

from __future__ import annotations

import io
import shlex
import subprocess
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cluster.description.launch_description import LaunchDescription
from cluster.rendering.rendered_file import RenderedFile
from rejoinder.core.errors import BackendError

CONNECT_S = 10
COMMAND_S = 300.0
_LAST_LINES = 6


class Remote(Protocol):
    """Access to machines by address."""

    def run(self, address: str, script: str, timeout_s: float = COMMAND_S) -> str:
        """Run a shell script on a machine and return what it printed.

        Raises:
            BackendError: The machine cannot be reached, or the script failed. The message has its last lines.
        """
        ...

    def write(self, address: str, folder: str, files: Iterable[RenderedFile]) -> None:
        """Write files into a folder of a machine, which is created if necessary.

        Raises:
            BackendError: The machine cannot be reached, or does not let the folder be written.
        """
        ...


@dataclass(frozen=True, slots=True)
class SshRemote:
    """Access with the `ssh` program, as the user and with the key of the launch description.

    The key of a machine that is contacted for the first time is accepted and remembered; a changed key is refused.

    Attributes:
        description: The launch description.
        environment: Environment variables that every script gets, such as the secret ones. They are passed in the
            script's text, so other users of the machine cannot see them in the list of processes.
    """

    description: LaunchDescription
    environment: Mapping[str, str]

    def run(self, address: str, script: str, timeout_s: float = COMMAND_S) -> str:
        """Run a shell script on a machine (see `Remote.run`)."""
        exports = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in self.environment.items())
        return self._ssh(address, "sh -s", f"{exports}{script}".encode(), timeout_s)

    def write(self, address: str, folder: str, files: Iterable[RenderedFile]) -> None:
        """Write files into a folder of a machine (see `Remote.write`)."""
        command = f'mkdir -p "{folder}" && tar -xf - -C "{folder}"'
        self._ssh(address, command, _archive(files), COMMAND_S)

    def _ssh(self, address: str, command: str, text: bytes, timeout_s: float) -> str:
        machines = self.description.machines
        key = Path(machines.ssh_private_key).expanduser()
        options = ["BatchMode=yes", f"ConnectTimeout={CONNECT_S}", "StrictHostKeyChecking=accept-new", "LogLevel=ERROR"]
        words = ["ssh", "-T", "-i", str(key), "-p", str(machines.ssh_port), *(f"-o{option}" for option in options)]
        target = f"{machines.ssh_user}@{address}"
        try:
            done = subprocess.run([*words, target, command], input=text, capture_output=True, timeout=timeout_s)
        except FileNotFoundError:
            raise BackendError("the program `ssh` is not installed.", "Install openssh-client.") from None
        except subprocess.TimeoutExpired:
            raise BackendError(f"{target}: no end within {timeout_s:g} s.", "See the logs of Ray there.") from None
        output = done.stdout.decode(errors="replace")
        if done.returncode:
            errors = done.stderr.decode(errors="replace")
            lines = [line for line in (errors or output).splitlines() if line.strip()]
            raise BackendError(
                f"{target}: {' '.join(lines[-_LAST_LINES:]) or f'exit status {done.returncode}'}.",
                f"Try `ssh -i {key} -p {machines.ssh_port} {target}`." if done.returncode == 255 else "",
            )
        return output


def _archive(files: Iterable[RenderedFile]) -> bytes:
    """Return files as a tar archive. Only their owner can read them."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as archive:
        for file in files:
            entry = tarfile.TarInfo(file.path)
            entry.mode = 0o700 if file.executable else 0o600
            entry.size = len(file.text.encode())
            archive.addfile(entry, io.BytesIO(file.text.encode()))
    return target.getvalue()
