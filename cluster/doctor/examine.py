"""The checks of `rejoinder doctor`: what a machine or cluster lacks to run Rejoinder, and the fixes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NoReturn

from cluster.doctor.finding import Finding, Grade
from cluster.doctor.gpu_checks import gpu_checks
from cluster.doctor.machine import MachineReport, examine_machine, source_digest
from cluster.doctor.servers import server_faults
from cluster.doctor.vllm_checks import Installed, installed_vllm, vllm_checks
from cluster.fitting import demands, misfits, offers
from cluster.gpus import HERE, NodeGpus, machine_gpus, node_gpus
from cluster.launch import joined, live_nodes, run_on_node, serve_port
from rejoinder.core.errors import BackendError, ConfigError
from rejoinder.core.settings.serve_file import ServeFile

MAX_SKEW_S = 0.5
"""Seconds by which a node's clock may differ: log files and traces of several nodes are read side by side."""


def examine(document: ServeFile, address: str = "") -> list[Finding]:
    """Run all checks and return their findings.

    Args:
        document: The configuration to serve.
        address: Ray cluster whose nodes are checked; "": this machine.
    """
    if not address:
        vllm = vllm_checks(document.application.args, [(HERE, installed_vllm())], machine_gpus)
        own = gpu_checks(document.application.args, machine_gpus)
        return [*examine_machine(document).findings, *_servers(document, keys_here=True), *vllm, *own]
    gpus: Callable[[], Sequence[NodeGpus]]
    packages: Installed = []
    try:
        with joined(address):
            nodes = live_nodes()
            findings = [Finding("cluster", Grade.OK, f"{len(nodes)} nodes at {address}"), *_room(document, nodes)]
            findings += each_node(document, nodes)
            packages = [(node["NodeManagerHostname"], run_on_node(node, installed_vllm)) for node in nodes]
            gpus = partial(node_gpus, nodes)
    except ConfigError as error:
        findings = [Finding("cluster", Grade.FAIL, error.message, error.remedy)]
        packages, gpus = [(HERE, installed_vllm())], partial(_unknown_gpus, address)
    findings += _servers(document, keys_here=False)
    return [*findings, *vllm_checks(document.application.args, packages, gpus)]


def _room(document: ServeFile, nodes: Sequence[Mapping[str, Any]]) -> list[Finding]:
    errors = misfits(demands(document.application.args), offers(nodes))
    if not errors:
        return [Finding("room", Grade.OK, "all replicas fit on the nodes")]
    return [Finding(f"room for {error.field}", Grade.FAIL, error.message, error.remedy) for error in errors]


def each_node(document: ServeFile, nodes: Sequence[Mapping[str, Any]]) -> list[Finding]:
    """Run the checks of a machine on every node of the joined cluster, and return the merged findings."""
    taken = serve_port() is not None
    reports: list[tuple[str, MachineReport]] = []
    findings: list[Finding] = []
    for node in nodes:
        check = partial(examine_machine, document, labels=node["Labels"], port_taken=taken)
        began = time.time()
        report = run_on_node(node, check)
        name = f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"
        reports.append((name, report))
        findings += skew(name, report.clock_s, began, time.time())
    return [*merged(reports), *findings, *_sources(reports)]


def merged(reports: Sequence[tuple[str, MachineReport]]) -> list[Finding]:
    """Return one finding for each check that is ok on all nodes that made it, and one a node for the others.

    Args:
        reports: The name and the report of each node.
    """
    by_check: dict[str, list[tuple[str, Finding]]] = {}
    for name, report in reports:
        for finding in report.findings:
            by_check.setdefault(finding.check, []).append((name, finding))
    findings = []
    for check, found in by_check.items():
        bad = [(name, finding) for name, finding in found if finding.grade is not Grade.OK]
        if bad:
            findings += [Finding(check, one.grade, f"{name}: {one.found}", one.fix) for name, one in bad]
        else:
            findings.append(Finding(check, Grade.OK, f"{found[0][1].found} ({len(found)} nodes)"))
    return findings


def skew(name: str, clock_s: float, began: float, ended: float) -> Iterator[Finding]:
    """Yield a warning if a node's clock differs from this machine's by more than MAX_SKEW_S for certain.

    Args:
        name: Name of the node.
        clock_s: Its clock, read at some moment between `began` and `ended`.
        began: This machine's clock before the node was asked.
        ended: This machine's clock after the answer.
    """
    off = clock_s - began if clock_s < began else max(0.0, clock_s - ended)
    if abs(off) > MAX_SKEW_S:
        fix = "Synchronize the clocks of the nodes, for example with chrony."
        yield Finding("clock", Grade.WARN, f"{name}: differs by {off:+.1f} s at least", fix)


def _sources(reports: Sequence[tuple[str, MachineReport]]) -> Iterator[Finding]:
    here = source_digest()
    other = [name for name, report in reports if report.source != here]
    if other:
        fix = "Check out the same commit on every node and here."
        yield Finding("source code", Grade.FAIL, f"{', '.join(other)}: differs from the code here", fix)
    else:
        yield Finding("source code", Grade.OK, f"the same on {len(reports)} nodes ({here})")


def _servers(document: ServeFile, *, keys_here: bool) -> Iterator[Finding]:
    for field, fault in server_faults(document.application.args, keys_here=keys_here):
        if fault:
            yield Finding(f"server of {field}", Grade.FAIL, fault.message, fault.remedy or "Check the server.")
        else:
            yield Finding(f"server of {field}", Grade.OK, "answers")


def _unknown_gpus(address: str) -> NoReturn:
    raise BackendError(f"the GPUs of the cluster at {address} are unknown.", "Fix the finding `cluster` first.")
