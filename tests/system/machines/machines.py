"""Several machines on this one, connected by a switch, for tests of clusters.

A machine is a set of Linux namespaces. It has its own network interface, address, hostname, process ids, home folder,
/tmp, /run and /dev/shm. It shares the other folders and the CPUs with this computer. So a program on it finds its ports
and paths free and sees only the processes of its machine, and `ray stop` ends only these.

The namespaces have no names, and exist as long as their processes. These die with the test process, also if that is
killed. So nothing is left behind, whatever happens.
"""

from __future__ import annotations

import ipaddress
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from rejoinder.core.errors import BackendError, ConfigError
from rejoinder.store.model_store import default_directory
from tests.system.harness.nodes import ROOT
from tests.system.harness.watching import wait_until

INTERFACE = "eth0"
# Command-line tools that are needed, each with the Debian package that contains it.
TOOLS = {"ip": "iproute2", "unshare": "util-linux", "nsenter": "util-linux", "setpriv": "util-linux"}
TUN = Path("/dev/net/tun")
_PRIVATE = ("/tmp", "/run", "/dev/shm", str(Path.home()))
_COMMAND_S = 20.0
# The networks of parallel test processes are /24 subnets of this range, chosen at random.
_RANGE = ipaddress.ip_network("10.64.0.0/10")


@dataclass(frozen=True, slots=True)
class Link:
    """Properties of the cable between a machine and the switch.

    Attributes:
        delay_ms: Delay in each direction, in milliseconds. A round trip takes twice as long.
        loss: Share of the packets that are lost in each direction, 0 to 1.
    """

    delay_ms: float = 0.0
    loss: float = 0.0

    @property
    def perfect(self) -> bool:
        """True without delay and loss."""
        return not self.delay_ms and not self.loss


PERFECT = Link()
"""Cable without delay and loss."""


@dataclass(frozen=True, slots=True)
class Machine:
    """A running machine.

    Attributes:
        name: Its hostname, which all machines of the network resolve.
        address: Its IPv4 address.
        process: Process id of its first process, as this computer counts.
        port: Name of the switch's interface to which its cable leads.
        switch: Process id of the switch's process.
    """

    name: str
    address: str
    process: int
    port: str
    switch: int

    def command(self, *words: str, environment: Mapping[str, str] | None = None) -> list[str]:
        """Return the command line that runs `words` on the machine, in the folder of the repository.

        `environment` has variables to add to those of the process that runs the command line.
        """
        variables = [f"{name}={value}" for name, value in (environment or {}).items()]
        return ["nsenter", f"--target={self.process}", "--all", "env", f"--chdir={ROOT}", *variables, *words]

    def run(
        self, *words: str, environment: Mapping[str, str] | None = None, timeout_s: float = 60.0
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on the machine and return the ended process, whose output was captured."""
        command = self.command(*words, environment=environment)
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)

    def cut_off(self) -> None:
        """Unplug the machine's network cable."""
        _in_network(self.switch, "ip", "link", "set", self.port, "down")

    def restore(self) -> None:
        """Plug the machine's network cable in again."""
        _in_network(self.switch, "ip", "link", "set", self.port, "up")

    def kill(self) -> None:
        """Kill all processes of the machine at once, and wait until they are gone. The machine stays off."""
        with suppress(psutil.NoSuchProcess):
            first = psutil.Process(self.process)
            first.kill()  # the kernel then kills all processes of its process namespace
            # Process 1 ends only after all others. `unshare`, its parent, has no reason to leave it a zombie.
            first.wait(_COMMAND_S)

    @property
    def running(self) -> bool:
        """True until the machine was killed."""
        return process_runs(self.process)


@dataclass
class Network:
    """A switch, to which machines are connected. This computer is connected too.

    Attributes:
        name: Name of this computer's interface to the switch. It ends in random letters.
        subnet: Subnet of the machines.
        switch: Process id of the switch's process.
        folder: Folder with the files that all machines share, on this computer.
        visible: Folders of this computer that the machines see even if they are in a private folder such as /tmp.
        machines: All machines so far, by name.
        stack: Contexts to leave at the end of the network.
    """

    name: str
    subnet: ipaddress.IPv4Network
    switch: int
    folder: Path
    visible: tuple[Path, ...]
    machines: dict[str, Machine] = field(default_factory=dict)
    stack: ExitStack = field(default_factory=ExitStack)

    @property
    def address(self) -> str:
        """IPv4 address of this computer in the network."""
        return str(self.subnet[254])

    def add(self, name: str, link: Link = PERFECT) -> Machine:
        """Switch a new machine on, and return it. It runs until it is killed or the network ends.

        Raises:
            ConfigError: This computer cannot emulate the link.
            BackendError: A command failed.
        """
        number = len(self.machines) + 1
        if not link.perfect and not os.access(TUN, os.R_OK | os.W_OK):
            raise ConfigError(f"a link with delay or loss needs the device {TUN}.", "Run `modprobe tun`.", field="link")
        address, port = str(self.subnet[number]), f"port-{number}"
        with (self.folder / "hosts").open("a", encoding="ascii") as hosts:
            hosts.write(f"{address} {name}\n")
        kept = _visible_in_private(self.visible)
        program = [sys.executable, str(Path(__file__).with_name("machine_init.py")), name, str(self.folder)]
        namespaces = ["unshare", "--net", "--pid", "--uts", "--mount", "--ipc", "--fork", "--mount-proc"]
        arguments = [":".join(_PRIVATE), ":".join(map(str, kept))]
        parent = self.stack.enter_context(_process([*namespaces, "--kill-child", *program, *arguments]))
        first = psutil.Process(parent).children()[0].pid
        machine = Machine(name, address, process=first, port=port, switch=self.switch)
        self._connect(machine, link)
        self.machines[name] = machine
        return machine

    def _connect(self, machine: Machine, link: Link) -> None:
        if link.perfect:
            other = ["peer", "name", INTERFACE, "netns", str(machine.process)]
            _in_network(self.switch, "ip", "link", "add", machine.port, "type", "veth", *other)
        else:
            program = [sys.executable, str(Path(__file__).with_name("slow_link.py"))]
            ends = [str(machine.process), INTERFACE, str(self.switch), machine.port]
            shape = [str(link.delay_ms / 1000), str(link.loss), str(len(self.machines))]
            self.stack.enter_context(_process([*program, *ends, *shape]))
        _in_network(self.switch, "ip", "link", "set", machine.port, "master", "switch", "up")
        inside = machine.process
        _in_network(inside, "ip", "address", "add", f"{machine.address}/24", "dev", INTERFACE)
        _in_network(inside, "ip", "link", "set", INTERFACE, "up")
        # Programs find out their own address by connecting a UDP socket to one in the internet, which needs a route.
        # Packets to it end at the switch, where nobody has that address.
        _in_network(inside, "ip", "route", "add", "default", "dev", INTERFACE)


def process_runs(process: int) -> bool:
    """Return whether a process runs. A killed process that its parent has not waited for does not run."""
    try:
        return psutil.Process(process).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def missing() -> list[str]:
    """Return what this computer lacks to run machines, in words: root or tools. Empty if nothing."""
    tools = [f"{tool} (Debian package {package})" for tool, package in TOOLS.items() if shutil.which(tool) is None]
    return [*(["root"] if os.geteuid() else []), *tools]


@contextmanager
def network(visible: Sequence[Path] = ()) -> Iterator[Network]:
    """Run a switch without machines. At the end of the context, also after an exception, all machines are killed.

    Args:
        visible: Folders of this computer that the machines can read and write although they are in a private folder
            such as /tmp. The repository, its virtual environment and the model store are always visible.

    Raises:
        ConfigError: This computer lacks root or a tool. The message names what is missing.
        BackendError: A command failed.
    """
    if lacking := missing():
        remedy = "Install the missing tools and run as root."
        raise ConfigError(f"machines in namespaces need {', '.join(lacking)}.", remedy, field="machines")
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="rjm-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        (folder / "hosts").write_text("127.0.0.1 localhost\n", encoding="ascii")
        # Without a server for names, unknown names fail at once.
        (folder / "resolv.conf").write_text("", encoding="ascii")
        switch = stack.enter_context(_process(["unshare", "--net", "sh", "-c", "echo ready; exec sleep infinity"]))
        shown = (ROOT, Path(sys.prefix), Path(sys.base_prefix), default_directory(), *visible)
        name = f"rj-{secrets.token_hex(4)}"
        made = Network(name, _free_subnet(), switch=switch, folder=folder, visible=shown, stack=stack)
        for words in (
            ["link", "set", "lo", "up"],
            ["link", "add", "switch", "type", "bridge"],
            ["link", "set", "switch", "up"],
            ["link", "add", "uplink", "type", "veth", "peer", "name", made.name, "netns", str(os.getpid())],
            ["link", "set", "uplink", "master", "switch", "up"],
        ):
            _in_network(switch, "ip", *words)
        stack.callback(_wait_for_removal, made.name)
        stack.callback(_in_network, switch, "ip", "link", "delete", "uplink")
        _checked(["ip", "address", "add", f"{made.address}/24", "dev", made.name])
        _checked(["ip", "link", "set", made.name, "up"])
        yield made


def _wait_for_removal(interface: str) -> None:
    wait_until(lambda: not Path("/sys/class/net", interface).exists(), _COMMAND_S, f"the removal of {interface}")


def _free_subnet() -> ipaddress.IPv4Network:
    used = _checked(["ip", "-4", "route", "show"])
    while True:
        subnet = ipaddress.IPv4Network((int(_RANGE[0]) + secrets.randbelow(_RANGE.num_addresses // 256) * 256, 24))
        if str(subnet[0]) not in used:
            return subnet


def _visible_in_private(folders: Sequence[Path]) -> list[Path]:
    """Return the existing folders that a machine's private folders would hide, without those inside of another one."""
    kept: list[Path] = []
    for path in sorted({path.resolve() for path in folders if path.exists()}):
        hidden = any(path.is_relative_to(private) for private in _PRIVATE)
        if hidden and not any(path.is_relative_to(other) for other in kept):
            kept.append(path)
    return kept


@contextmanager
def _process(command: list[str]) -> Iterator[int]:
    """Run a program until the context ends. Yield its process id once it has printed "ready".

    The kernel kills it if this thread ends.
    """
    with tempfile.TemporaryFile() as errors:
        started = ["setpriv", "--pdeathsig=KILL", *command]
        process = subprocess.Popen(started, stdout=subprocess.PIPE, stderr=errors, text=True)
        assert process.stdout is not None
        try:
            if process.stdout.readline() != "ready\n":
                errors.seek(0)
                why = errors.read().decode(errors="replace").strip()[-1000:]
                raise BackendError(f"`{' '.join(command[:8])} ...` failed: {why}.", stage="machines")
            yield process.pid
        finally:
            children = psutil.Process(process.pid).children() if process.poll() is None else []
            for child in children:  # the first process of a machine; `unshare` ends with it
                child.kill()
            if not children:
                process.kill()
            process.wait(_COMMAND_S)
            process.stdout.close()


def _in_network(process: int, *words: str) -> str:
    """Run a command in the network namespace of a process, and return its output."""
    return _checked(["nsenter", f"--target={process}", "--net", *words])


def _checked(command: list[str]) -> str:
    try:
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=_COMMAND_S)
    except (OSError, subprocess.SubprocessError) as error:
        output = (getattr(error, "stderr", "") or str(error)).strip()
        raise BackendError(f"`{' '.join(command)}` failed: {output}.", stage="machines") from None
    return done.stdout
