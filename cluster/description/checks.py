"""Checks of a launch description against its target and serve profile, before anything is rendered or started."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from urllib.parse import urlsplit

from cluster.description.launch_description import Launch, LaunchDescription, Target
from cluster.description.placement import check_room
from cluster.doctor.machine import needed_models
from rejoinder.core.errors import ConfigError
from rejoinder.core.settings.section import is_loopback
from rejoinder.core.settings.serve_file import ServeFile
from rejoinder.core.settings.settings import LlmSettings
from rejoinder.store import open_store

SSH_PORT = 22


def check_launch(launch: Launch, target: Target) -> list[str]:
    """Check a launch for a target, and return notes about what may be unintended.

    Raises:
        ConfigError: The launch cannot work; the error names the first reason and the fix.
    """
    if target == "kuberay":
        _check_kubernetes(launch.description)
        _check_monitoring(launch)
        _check_drain(launch)
    else:
        _check_machines(launch.description, target)
    _check_entry(launch)
    _check_models(launch.serve)
    notes = check_room(launch)
    return [*_check_keys(launch), *notes]


def _check_machines(description: LaunchDescription, target: Target) -> None:
    for number, group in enumerate(description.groups):
        if not group.addresses:
            raise ConfigError(
                f"group {group.name} has no machines, which {target} needs.",
                "Add addresses, or render it for Kubernetes (--target kuberay).",
                field=f"groups.{number}.addresses",
            )
    if target == "ray-up" and description.machines.ssh_port != SSH_PORT:
        raise ConfigError(
            f"Ray's cluster launcher connects to port {SSH_PORT} only.",
            f"Let the SSH servers listen on {SSH_PORT}, or use --target bare.",
            field="machines.ssh_port",
        )


def _check_kubernetes(description: LaunchDescription) -> None:
    for number, group in enumerate(description.groups):
        if group.addresses:
            raise ConfigError(
                f"group {group.name} has addresses of machines, but Kubernetes chooses its nodes.",
                "Replace addresses by count, or by min and max.",
                field=f"groups.{number}.addresses",
            )
        if not getattr(description.images, group.image):
            raise ConfigError(
                f"group {group.name} uses the image {group.image}, which is not named.",
                f"Build cluster/images/{group.image}.Dockerfile, push it, and write its name here.",
                field=f"images.{group.image}",
            )
    for number, secret in enumerate(description.secrets):
        if secret.kubernetes is None:
            raise ConfigError(
                f"{secret.variable} has no Secret of Kubernetes.",
                "Add kubernetes with the name of the Secret and its key.",
                field=f"secrets.{number}.kubernetes",
            )
    if description.tls and not description.tls.secret:
        raise ConfigError(
            "the pods have no Secret with the certificate.",
            "Set it to the name of a Secret of the type kubernetes.io/tls.",
            field="tls.secret",
        )
    if not description.models.claim and not description.models.host_path:
        raise ConfigError(
            "the pods have no volume for model files.",
            "Set claim to the name of a volume claim, or host_path to a folder of the Kubernetes nodes.",
            field="models",
        )


def _check_monitoring(launch: Launch) -> None:
    """Check that Prometheus gets a key for the list of targets if the hosts have keys."""
    description, settings = launch.description, launch.serve.application.args
    watched = description.kubernetes.monitoring_namespace and not description.kubernetes.monitoring_key
    if watched and (settings.host.api_keys_env in description.secret_variables or settings.access.keys):
        raise ConfigError(
            "the hosts have keys, and Prometheus has none for /metrics/targets.",
            f"Add a key with scope=metrics to {settings.host.api_keys_env}, and name its Secret here: "
            "{name: SECRET, key: KEY}.",
            field="kubernetes.monitoring_key",
        )


def _check_entry(launch: Launch) -> None:
    """Check that callers from other machines reach the server at the port of the description."""
    options, port = launch.serve.http_options, launch.description.ports.http
    if ":" in options.host:
        raise ConfigError(
            f"{options.host!r} is an IPv6 address, which Ray Serve's proxies do not support.",
            "Use 0.0.0.0.",
            field="http_options.host",
        )
    if is_loopback(options.host):
        raise ConfigError(
            f"{options.host} accepts no calls from other machines.",
            "Set it to 0.0.0.0 in the profile.",
            field="http_options.host",
        )
    if options.port != port:
        raise ConfigError(
            f"the profile listens on port {options.port}, and ports.http of the description is {port}.",
            "Make both equal.",
            field="http_options.port",
        )


def _check_models(serve: ServeFile) -> None:
    """Check that the model store can have each model that the profile names. The nodes' own files are not looked at."""
    known = open_store(serve.application.args.models).manifest.models
    for model, field in needed_models(serve).items():
        if model not in known and "/" not in model:
            raise ConfigError(
                f"{model!r} is not a model of the store.",
                f"Use one of {', '.join(sorted(known))}, an absolute path, or files on a hub.",
                field=field,
            )


def _check_drain(launch: Launch) -> None:
    longest, drain = launch.serve.application.args.host.session_max_s, launch.description.kubernetes.drain_s
    if drain < longest:
        raise ConfigError(
            f"drain_s {drain} is below host.session_max_s {longest:g} of the profile: an upgrade would cut off calls.",
            f"Raise it to at least {longest:g}.",
            field="kubernetes.drain_s",
        )


def _check_keys(launch: Launch) -> Iterator[str]:
    """Yield a note for each open door. Raise ConfigError if callers need no key, or a hosted language model gets none.

    With `access.insecure`, callers may need no key.
    """
    description, settings = launch.description, launch.serve.application.args
    given = {*description.secret_variables, *description.environment}
    for section, llm in (("llm", settings.llm), ("llm_backup", settings.llm_backup)):
        if llm and _needs_key(llm) and llm.api_key_env not in given:
            raise ConfigError(
                f"{llm.base_url} needs a key in {llm.api_key_env}, which no node gets.",
                f"Add {{variable: {llm.api_key_env}}} to secrets.",
                field=f"args.{section}.api_key_env",
            )
    if settings.host.api_keys_env not in given and not settings.access.keys:
        if not settings.access.insecure:
            raise ConfigError(
                "callers would need no key.",
                f"Add {{variable: {settings.host.api_keys_env}}}, or set access.insecure: true in the profile on a "
                "network that you trust.",
                field="secrets",
            )
        yield f"callers need no key: add {{variable: {settings.host.api_keys_env}}} to secrets to require one."
    if not description.token:
        yield "token is false: whoever reaches Ray's ports can run code on the nodes."


def _needs_key(llm: LlmSettings) -> bool:
    """Return True if the language model is a server of the public Internet. One inside a network may need no key."""
    host = urlsplit(llm.base_url).hostname or ""
    try:
        return llm.engine == "openai_api" and ipaddress.ip_address(host).is_global
    except ValueError:
        return llm.engine == "openai_api" and "." in host and not host.endswith((".local", ".internal", ".svc"))
