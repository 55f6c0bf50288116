"""Files for machines that are started with `ray start`: for each node its command, environment and systemd units."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence

from cluster.description.launch_description import Launch, LaunchDescription
from cluster.environment import SPARE_FILES
from cluster.rendering.node_environment import OPEN_FILES
from cluster.rendering.node_plan import NodePlan, plan_nodes
from cluster.rendering.rendered_file import MARK, RenderedFile, yaml_file
from cluster.rendering.serve_config import serve_document

CONFIGURATION = "/etc/rejoinder"
"""Folder of a node's environment, start script and serve profile."""
STOP_S = 90
"""Seconds that Ray has to end its processes. Calls end before, by `rejoinder launch drain`."""


def render_bare(launch: Launch) -> Iterator[RenderedFile]:
    """Yield the files for the target `bare`: the serve profile, and a folder for each node.

    Raises:
        ConfigError: A group has no addresses, or a stage cannot be placed.
    """
    description = launch.description
    yield yaml_file("ray_config.yaml", [serve_document(launch)], f"{MARK}. Deploy: serve deploy ray_config.yaml")
    for node in plan_nodes(description):
        folder = f"nodes/{node.name}"
        units = {"rejoinder-ray.service": ray_unit(node, description)}
        if node.is_head:
            units["rejoinder-serve.service"] = serve_unit(description)
        yield RenderedFile(f"{folder}/ray.env", environment_file(node.environment))
        yield RenderedFile(f"{folder}/start-ray.sh", start_script(node, description), executable=True)
        yield RenderedFile(f"{folder}/90-rejoinder.conf", kernel_settings(description))
        for name, text in units.items():
            yield RenderedFile(f"{folder}/{name}", text)
        yield RenderedFile(f"{folder}/install.sh", install_script(node, list(units)), executable=True)


def environment_file(environment: Mapping[str, str]) -> str:
    """Return variables as lines NAME='value', which systemd and shells read in the same way."""
    return f"# {MARK}.\n" + "".join(f"{name}='{value}'\n" for name, value in environment.items())


def kernel_settings(description: LaunchDescription) -> str:
    """Return a file for /etc/sysctl.d: the range of ephemeral ports, and the length of the queue of new connections."""
    ports = description.ports.ephemeral
    return f"# {MARK}.\nnet.ipv4.ip_local_port_range = {ports.first} {ports.last}\nnet.core.somaxconn = 4096\n"


# HAProxy does not start if it may not open the files that its connections need.
_FEWER_CONNECTIONS = (
    "files=$(ulimit -n)",
    f'if [ "$files" != unlimited ] && [ $(((files - {SPARE_FILES}) * 2 / 5)) -lt "$RAY_SERVE_HAPROXY_MAXCONN" ]; then',
    f"  RAY_SERVE_HAPROXY_MAXCONN=$(((files - {SPARE_FILES}) * 2 / 5))",
    f'  echo "$files open files allow $RAY_SERVE_HAPROXY_MAXCONN connections ({OPEN_FILES} are advised)." >&2',
    "fi",
)


def start_script(node: NodePlan, description: LaunchDescription, secrets: Sequence[str] = ()) -> str:
    """Return a shell script that starts Ray on a node with its environment. Further options are passed on to Ray.

    Args:
        node: The node.
        description: The launch description.
        secrets: Further files with secret variables, besides `machines.secrets_file`. They may be missing, and their
            paths may use the variable `$folder`, the folder of the script.
    """
    lines = [
        "#!/bin/sh",
        f"# {MARK}: Ray on {node.name} ({node.address}).",
        "set -eu",
        'folder=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)',
        f'ulimit -n {OPEN_FILES} 2>/dev/null || ulimit -n "$(ulimit -Hn)"',
        "set -a",
        '. "$folder/ray.env"',
        *_read_secrets(description, secrets),
        *_FEWER_CONNECTIONS,
        # Ray's processes leave files here when they are stopped. In this folder they are removed with the cluster.
        f"TMPDIR={node.state}/tmp",
        f'PATH="{description.machines.virtualenv}/bin:$PATH"',
        "set +a",
        f"mkdir -p {node.state}/ray {node.state}/tmp {node.haproxy}",
        f"cd {description.machines.checkout}",
        f'exec {shlex.join(node.start)} "$@"',
    ]
    return "\n".join(lines) + "\n"


def _read_secrets(description: LaunchDescription, further: Sequence[str]) -> list[str]:
    """Return shell lines that read files with secret variables, and name the first variable that no file has set."""
    path = description.machines.secrets_file
    if not description.secret_variables:
        return []
    checks = [
        f': "${{{name}:?write {name}=... to {path} on this node, readable for its owner only}}"'
        for name in description.secret_variables
    ]
    return [*[f'if [ -r "{file}" ]; then . "{file}"; fi' for file in (path, *further)], *checks]


def ray_unit(node: NodePlan, description: LaunchDescription) -> str:
    """Return the systemd unit that keeps Ray running on a node, with the node's start script."""
    machines = description.machines
    folders = f"{node.state} {node.state}/ray {node.state}/tmp {node.haproxy}"
    lines = [
        f"# {MARK}.",
        "[Unit]",
        f"Description=Ray node {node.name} of the Rejoinder cluster {description.name}",
        "Wants=network-online.target",
        "After=network-online.target",
        "",
        "[Service]",
        "Type=exec",
        f"User={machines.ssh_user}",
        # The sign + runs this one command as root.
        f"ExecStartPre=+/usr/bin/install -d -o {machines.ssh_user} {folders}",
        f"ExecStart=/bin/sh {CONFIGURATION}/start-ray.sh --block",
        f"TimeoutStopSec={STOP_S}",
        "Restart=always",
        "RestartSec=5",
        f"LimitNOFILE={OPEN_FILES}",
        "LimitMEMLOCK=infinity",
        "TasksMax=infinity",
        # The kernel may kill one replica that takes too much memory. The node itself goes on.
        "OOMPolicy=continue",
        "",
        "[Install]",
        "WantedBy=multi-user.target",
    ]
    return "\n".join(lines) + "\n"


def serve_unit(description: LaunchDescription) -> str:
    """Return the systemd unit that deploys the application on the head after Ray has started."""
    machines = description.machines
    serve = f"{machines.virtualenv}/bin/serve"
    address = f"http://127.0.0.1:{description.ports.dashboard}"
    secrets = [f"EnvironmentFile={machines.secrets_file}"] if description.secret_variables else []
    lines = [
        f"# {MARK}.",
        "[Unit]",
        f"Description=Rejoinder on the Ray cluster {description.name}",
        "Requires=rejoinder-ray.service",
        "After=rejoinder-ray.service",
        "PartOf=rejoinder-ray.service",
        "",
        "[Service]",
        "Type=oneshot",
        "RemainAfterExit=yes",
        f"User={machines.ssh_user}",
        f"WorkingDirectory={machines.checkout}",
        f"EnvironmentFile={CONFIGURATION}/ray.env",
        *secrets,
        f"ExecStart={serve} deploy {CONFIGURATION}/ray_config.yaml --address {address}",
        # The dashboard answers some seconds after Ray has started.
        "Restart=on-failure",
        "RestartSec=5",
        "",
        "[Install]",
        "WantedBy=multi-user.target",
    ]
    return "\n".join(lines) + "\n"


def install_script(node: NodePlan, units: list[str]) -> str:
    """Return a shell script that installs a node's files and starts its units. It must run as root on the node."""
    lines = [
        "#!/bin/sh",
        f"# {MARK}: install {node.name} ({node.address}). Run it as root on that machine, from this folder.",
        "set -eu",
        'cd -- "$(dirname -- "$0")"',
        f"install -D -m 644 ray.env {CONFIGURATION}/ray.env",
        f"install -m 755 start-ray.sh {CONFIGURATION}/start-ray.sh",
        *([f"install -D -m 644 ../../ray_config.yaml {CONFIGURATION}/ray_config.yaml"] if node.is_head else []),
        "install -D -m 644 90-rejoinder.conf /etc/sysctl.d/90-rejoinder.conf",
        "sysctl -q -p /etc/sysctl.d/90-rejoinder.conf",
        f"install -m 644 {' '.join(units)} /etc/systemd/system/",
        "systemctl daemon-reload",
        f"systemctl enable {' '.join(units)}",
        f"systemctl restart {' '.join(units)}",
    ]
    return "\n".join(lines) + "\n"
