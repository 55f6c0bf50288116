"""`rejoinder serve`: run the whole system until Ctrl-C."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.live import Live
from rich.table import Table

from cluster.config_file import read_config
from cluster.doctor.machine import needed_models
from cluster.doctor.servers import server_faults
from cluster.environment import check_open_files, entry_variables
from cluster.head_watch import HeadLost, await_end
from cluster.launch import LaunchProgress, application, cluster
from cluster.self_signed import self_signed, server_names, tls_folder
from deployments.engines.model_files import check_model_files
from deployments.engines.speech_in.noise import suppressors
from deployments.serving.access import carrying_keys, check_bind
from rejoinder.core.errors import ConfigError, ModelError
from rejoinder.core.measuring.service_curves import STACKS
from rejoinder.core.settings.access.tls import TlsSettings
from rejoinder.core.settings.section import is_loopback
from rejoinder.core.settings.serve_file import ServeFile
from rejoinder.core.settings.settings import parse_settings
from rejoinder.store import ModelStatus, open_store

HEAD_LOST = 1
"""Exit status if Ray's head dies while the system runs, or does not stop at its end."""
SELF_SIGNED = "self-signed"
"""Value of --tls that makes a certificate."""


def serve(
    config: Annotated[
        Path | None, typer.Argument(help="The ray_config.yaml to serve. Without it the default settings apply.")
    ] = None,
    address: Annotated[
        str,
        typer.Option(help="Ray cluster: auto joins a running one or starts one, local starts one, or HOST:PORT."),
    ] = "auto",
    port: Annotated[
        int | None, typer.Option(help="HTTP port. 0 takes a free one. Default: the port of the file.")
    ] = None,
    emulate: Annotated[
        str | None,
        typer.Option(
            metavar="STACK",
            help=f"Emulate stt, llm and tts with published latencies, without models: {', '.join(STACKS)}.",
        ),
    ] = None,
    *,
    tls: Annotated[
        str | None,
        typer.Option(
            help="Speak TLS: a PEM file with certificate and key, or self-signed for trying out, which also prints the "
            "file that clients must trust.",
        ),
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Accept calls from other machines although no key is set.")
    ] = False,
) -> None:
    """Start Rejoinder and print its URLs once it is healthy.

    Ctrl-C stops what this command started: the application, and Ray if it was not running before.

    Exit status: 0 after Ctrl-C, 2 if the system cannot start, 1 if Ray's head dies while it runs.
    """
    document = _with_tls(_emulating(_with_port(read_config(config), port), emulate), tls)
    document = _with_keys(document, insecure=insecure)
    _check(document, address)
    settings = document.application.args
    console, stop = Console(), threading.Event()
    _stop_on_signals(stop)
    hosts, alone = settings.host.autoscaling.max_replicas, is_loopback(document.http_options.host)
    environment, entry = document.application.runtime_env, entry_variables(settings)
    try:
        with cluster(address, environment, hosts=hosts, entry=entry, alone=alone) as joined:
            _stop_on_signals(stop)  # again, because Ray replaced the handler of SIGTERM by one that aborts this process
            console.print("Started a local Ray cluster." if joined.own else "Joined the running Ray cluster.")
            live = Live(console=console, refresh_per_second=4, transient=True)
            with live, application(document, lambda progress: live.update(_table(progress))) as url:
                live.stop()
                console.print(_urls(url))
                await_end(stop, joined.head, url, console.print)
                console.print("Stopping ...")
    except HeadLost as lost:
        _abort(lost)


def _abort(lost: HeadLost) -> NoReturn:
    """Print why the system ended, and end this process at once with status 1.

    The interpreter's own end would call Ray, which waits for processes that are gone.
    """
    typer.secho(str(lost), fg=typer.colors.RED, err=True)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(HEAD_LOST)


def _check(document: ServeFile, address: str) -> None:
    """Raise ConfigError if the system cannot start, before anything is started. `address` is that of the cluster."""
    settings = document.application.args
    if not settings.access.keys:
        check_bind(document.http_options.host, settings)
    check_open_files("ulimit -n")
    _check_models(document)
    for _, fault in server_faults(settings, keys_here=address == "local"):
        if fault:
            raise fault


def _with_port(document: ServeFile, port: int | None) -> ServeFile:
    if port is None:
        return document
    options = document.http_options.model_copy(update={"port": port})
    return document.model_copy(update={"http_options": options})


def _with_tls(document: ServeFile, tls: str | None) -> ServeFile:
    """Return the document with the certificate that the option --tls names, and print which file clients must trust.

    Raises:
        ConfigError: A file of the certificate cannot be read, or --tls is given beside a certificate of the file.
    """
    application = document.application
    settings = application.args
    if tls is not None:
        if settings.tls.certificate:
            raise ConfigError("the file has a certificate already (args.tls).", "Remove one of them.", field="--tls")
        certificate, key = tls, ""
        if tls == SELF_SIGNED:
            files = self_signed(tls_folder(), server_names(document.http_options.host))
            certificate, key = str(files.certificate), str(files.key)
            typer.echo(f"Clients must trust {files.authority}, for example with --ca or SSL_CERT_FILE.")
        changed = settings.model_copy(update={"tls": TlsSettings(certificate=certificate, key=key)})
        document = document.model_copy(update={"applications": [application.model_copy(update={"args": changed})]})
        settings = changed
    for field, path in (("args.tls.certificate", settings.tls.certificate), ("args.tls.key", settings.tls.key)):
        if path and not os.access(path, os.R_OK):
            raise ConfigError(f"{path} cannot be read.", "Name a PEM file.", field=field if tls is None else "--tls")
    return document


def _with_keys(document: ServeFile, *, insecure: bool) -> ServeFile:
    """Return the document with the keys of this process, so that hosts on other nodes accept them and no others.

    With `insecure`, hosts without keys accept calls from other machines.

    Raises:
        ConfigError: The keys cannot be read.
    """
    application = document.application
    args = carrying_keys(application.args)
    if insecure:
        args = args.model_copy(update={"access": args.access.model_copy(update={"insecure": True})})
    changed = application.model_copy(update={"args": args})
    return document.model_copy(update={"applications": [changed]})


def _emulating(document: ServeFile, stack: str | None) -> ServeFile:
    """Return the document with the engines of stt, llm and tts replaced by the emulations of `stack`.

    If `stack` is None, the document is returned unchanged.

    Raises:
        ConfigError: There is no such stack.
    """
    if stack is None:
        return document
    if stack not in STACKS:
        raise ConfigError(f"there is no stack {stack!r}.", f"Use one of {', '.join(STACKS)}.", field="--emulate")
    application = document.application
    args = application.args.model_dump()
    for stage, profile in STACKS[stack].items():
        args[stage] |= {"engine": "emulated", "emulation": {"profile": profile}}
    changed = application.model_copy(update={"args": parse_settings(args)})
    return document.model_copy(update={"applications": [changed]})


def _check_models(document: ServeFile) -> None:
    """Raise ConfigError if a model that `document` needs, or the package of the noise suppressor, is missing.

    Call this before anything is started.
    """
    settings = document.application.args
    suppressors(settings.noise)
    store = open_store(settings.models)
    needed = needed_models(document)
    missing = [name for name in needed if store.status(name) is ModelStatus.ABSENT]
    paths = [name for name in missing if name.startswith(("/", "~"))]
    if paths:
        raise ConfigError(f"there is no file or folder {paths[0]}.", "Correct the path.", field=needed[paths[0]])
    if missing:
        names = " ".join(missing)
        raise ConfigError(f"models are missing: {names}.", f"Run `rejoinder models pull {names}`.", field="args.models")
    for name, field in needed.items():
        if "/" in name:  # the files of the manifest's models were verified when they were pulled
            try:
                check_model_files(field, store.path(name))
            except ModelError as error:
                raise ConfigError(str(error), field=field) from error


def _stop_on_signals(stop: threading.Event) -> None:
    """Set `stop` at SIGINT, SIGTERM and SIGHUP (the terminal was closed). The second of them interrupts at once."""

    def set_stop(signum: int, frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, set_stop)


def _table(progress: LaunchProgress) -> Table:
    table = Table("deployment", "status", "replicas", title="Waiting until every replica is healthy")
    for name, (status, running, target) in progress.deployments.items():
        table.add_row(name, status.lower(), f"{running}/{target}")
    return table


def _urls(url: str) -> str:
    socket = url.replace("http", "ws", 1)
    return (
        f"Rejoinder is running.\n"
        f"  OpenAI Realtime   {socket}/v1/realtime\n"
        f"  health            {url}/healthz\n"
        f"  models            {url}/v1/models\n"
        f"  Prometheus        {url}/metrics/targets\n"
        f"Talk to it:         rejoinder talk question.wav --url {socket}/v1\n"
        f"Ctrl-C stops it."
    )
