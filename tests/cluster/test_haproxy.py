"""Tests of the program that starts HAProxy for Ray Serve: what it changes, and that HAProxy then does it."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest
from ray.serve._private.haproxy import BackendConfig, HAProxyApi, HAProxyConfig, ServerConfig
from ray.serve.config import HTTPOptions

from cluster.environment import free_port
from cluster.haproxy import (
    BINARY,
    CERTIFICATE,
    KEY,
    METRICS_HOST,
    REQUEST_S,
    TLS_PORT,
    TRUSTED,
    Hardening,
    UnknownTemplate,
    changes_of,
    haproxy_binary,
    hardened,
    write_launcher,
)
from cluster.self_signed import self_signed

HALF = b"GET / HTTP/1.1\r\nHost: x\r\n"


class Echo(BaseHTTPRequestHandler):
    """A host that answers every request with the headers that HAProxy sent to it."""

    def do_GET(self) -> None:
        body = "".join(f"{name.lower()}: {value}\n" for name, value in self.headers.items()).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Log nothing."""


@dataclass(frozen=True)
class Entry:
    """A running HAProxy in front of `Echo`.

    Attributes:
        process: The process, started as Ray starts it.
        port: Port for HTTP.
        metrics: Port of the metrics.
        statistics: Port that Ray's template has for the statistics page.
        folder: Folder with the configuration and the admin socket.
    """

    process: subprocess.Popen[bytes]
    port: int
    metrics: int
    statistics: int
    folder: Path


def configuration(folder: Path, port: int, *, metrics: int = 1, statistics: int = 2, host: int = 3) -> str:
    """Return the configuration that Ray Serve writes for one application with one host at the port `host`."""
    config = HAProxyConfig(
        socket_path=str(folder / "admin.sock"),
        server_state_base=str(folder),
        server_state_file=str(folder / "state"),
        metrics_socket_path=str(folder / "m.sock"),
        metrics_port=metrics,
        stats_port=statistics,
        http_options=HTTPOptions(host="127.0.0.1", port=port),
    )
    api = HAProxyApi(config, config_file_path=str(folder / "haproxy.cfg"))
    server = ServerConfig(name="s1", host="127.0.0.1", port=host)
    api.set_backend_configs({"a": BackendConfig(name="a", path_prefix="/", app_name="a", servers=[server])})
    api._generate_config_file_internal()
    return (folder / "haproxy.cfg").read_text(encoding="utf-8")


@contextmanager
def entry(folder: Path, **environment: str) -> Iterator[Entry]:
    """Run HAProxy as Ray does, with our launcher and these variables, until the block ends."""
    host = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    threading.Thread(target=host.serve_forever, daemon=True).start()
    ports = {name: free_port() for name in ("port", "metrics", "statistics")}
    configuration(folder, **ports, host=host.server_port)
    command = [str(write_launcher(folder)), "-db", "-f", str(folder / "haproxy.cfg"), "-dR"]
    process = subprocess.Popen(command, env={**os.environ, BINARY: command[0], **environment})
    try:
        reachable(ports["port"])
        yield Entry(process, folder=folder, **ports)
    finally:
        process.kill()
        process.wait()
        host.shutdown()
        host.server_close()


def reachable(port: int, address: str = "127.0.0.1") -> None:
    """Wait until something listens on a port, for at most ten seconds."""
    for _ in range(200):
        with suppress(OSError), socket.create_connection((address, port), timeout=1):
            return
        time.sleep(0.05)
    raise AssertionError(f"nothing listens on port {port}")


def headers(url: str, **options: Any) -> dict[str, str]:
    """Request a URL and return the headers that the host got."""
    with httpx2.Client(verify=options.pop("verify", True)) as client:
        lines = client.get(url, **options).text.splitlines()
    return dict(line.split(": ", 1) for line in lines)


@pytest.mark.parametrize(
    "changes",
    [Hardening(), Hardening(certificate="CERT"), Hardening(certificate="CERT", tls_port=8443, trusted=("10.0.0.0/8",))],
)
def test_haproxy_accepts_the_changed_configuration(tmp_path: Path, changes: Hardening) -> None:
    """HAProxy accepts what Ray writes after the changes. A changed configuration is not changed again."""
    pem = tmp_path / "cert.pem"
    made = self_signed(tmp_path / "made", ("127.0.0.1",))
    pem.write_text(made.certificate.read_text() + made.key.read_text())
    text = hardened(configuration(tmp_path, 8000), changes).replace("CERT", str(pem))
    (tmp_path / "haproxy.cfg").write_text(text)
    checked = subprocess.run(
        [haproxy_binary(), "-c", "-f", str(tmp_path / "haproxy.cfg")], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stderr
    assert hardened(text, changes) == text


@pytest.mark.parametrize(
    "line", ["mode 666 ", "option httplog", "frontend prometheus", "listen stats", "frontend http_frontend"]
)
def test_an_unknown_configuration_is_refused(tmp_path: Path, line: str) -> None:
    """If another version of Ray writes a line differently, HAProxy is not started, and the reason names the line."""
    text = configuration(tmp_path, 8000)
    assert line in text
    with pytest.raises(UnknownTemplate):
        hardened(text.replace(line, "something else"), Hardening())


def test_half_a_request_and_a_silent_socket_are_closed(tmp_path: Path) -> None:
    """500 clients that send half a request and 500 that send nothing are closed after the time limit for headers.

    One that sends a header line every half second gains nothing by it. Requests are answered meanwhile.
    """
    with entry(tmp_path, **{REQUEST_S: "2"}) as found:
        sockets = [socket.create_connection(("127.0.0.1", found.port)) for _ in range(1000)]
        for half in sockets[:500]:
            half.sendall(HALF)
        began = time.monotonic()
        while time.monotonic() - began < 2.5:
            with suppress(OSError):  # it is closed
                sockets[0].sendall(b"X-Slow: 1\r\n")
            assert "x-forwarded-for" in headers(f"http://127.0.0.1:{found.port}/")
            time.sleep(0.5)
        for one in sockets:
            one.settimeout(1)
            with closing(one), suppress(ConnectionResetError):
                answer = one.recv(1000)
                assert answer == b"" or b" 408 " in answer, answer


def test_the_host_learns_the_address_of_the_client(tmp_path: Path) -> None:
    """The host gets the client's address, and never one that the client made up.

    A load balancer in a trusted network may say for whom it asks.
    """
    forged = {"X-Forwarded-For": "6.6.6.6", "X-Forwarded-Proto": "https"}
    (tmp_path / "strict").mkdir()
    with entry(tmp_path / "strict") as found:
        assert headers(f"http://127.0.0.1:{found.port}/", headers=forged)["x-forwarded-for"] == "127.0.0.1"
    (tmp_path / "trusting").mkdir()
    with entry(tmp_path / "trusting", **{TRUSTED: "10.0.0.0/8, 127.0.0.0/8"}) as found:
        assert headers(f"http://127.0.0.1:{found.port}/", headers=forged)["x-forwarded-for"] == "6.6.6.6"
        assert headers(f"http://127.0.0.1:{found.port}/")["x-forwarded-for"] == "127.0.0.1"


def test_nothing_else_is_open(tmp_path: Path) -> None:
    """There is no statistics page, the metrics are on the loopback address, and only the owner has the admin socket."""
    with entry(tmp_path, **{METRICS_HOST: ""}) as found:
        assert httpx2.get(f"http://127.0.0.1:{found.metrics}/metrics").status_code == 200
        listening = {
            (connection.laddr.ip, connection.laddr.port)
            for connection in psutil.Process(found.process.pid).net_connections("tcp")
            if connection.status == psutil.CONN_LISTEN
        }
        assert listening == {("127.0.0.1", found.port), ("127.0.0.1", found.metrics)}
        assert (tmp_path / "admin.sock").stat().st_mode & 0o777 == 0o600
        assert tmp_path.stat().st_mode & 0o777 == 0o700


def test_haproxy_speaks_tls(tmp_path: Path) -> None:
    """With a certificate, the HTTP port answers over TLS only, and the host learns that the client used https."""
    made = self_signed(tmp_path / "made", ("127.0.0.1",))
    trust = ssl.create_default_context(cafile=str(made.authority))
    variables = {CERTIFICATE: str(made.certificate), KEY: str(made.key)}
    with entry(tmp_path, **variables) as found:
        got = headers(f"https://127.0.0.1:{found.port}/", verify=trust)
        assert got["x-forwarded-proto"] == "https"
        with pytest.raises(httpx2.HTTPError):
            httpx2.get(f"https://127.0.0.1:{found.port}/")
        with pytest.raises((httpx2.HTTPError, ssl.SSLError)):
            httpx2.get(f"http://127.0.0.1:{found.port}/").raise_for_status()
        assert (tmp_path / "tls.pem").stat().st_mode & 0o777 == 0o600


def test_tls_may_have_its_own_port(tmp_path: Path) -> None:
    """With a port for TLS, the HTTP port stays in plaintext, for health checks inside of a cluster."""
    made = self_signed(tmp_path / "made", ("127.0.0.1",))
    port = free_port()
    variables = {CERTIFICATE: str(made.certificate), KEY: str(made.key), TLS_PORT: str(port)}
    with entry(tmp_path, **variables) as found:
        assert headers(f"http://127.0.0.1:{found.port}/")
        trust = ssl.create_default_context(cafile=str(made.authority))
        assert headers(f"https://127.0.0.1:{port}/", verify=trust)["x-forwarded-proto"] == "https"


def test_haproxy_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    """If its manager is killed, HAProxy frees its port within a second, and ends with its last connection."""
    (tmp_path / "other").mkdir()
    port = free_port()
    configuration(tmp_path, port, metrics=free_port())
    launcher = write_launcher(tmp_path)
    script = "import subprocess, sys, time; print(subprocess.Popen(sys.argv[1:]).pid, flush=True); time.sleep(60)"
    command = [str(launcher), "-db", "-f", str(tmp_path / "haproxy.cfg")]
    manager = subprocess.Popen([sys.executable, "-c", script, *command], stdout=subprocess.PIPE, text=True)
    assert manager.stdout is not None
    proxy = psutil.Process(int(manager.stdout.readline()))
    try:
        reachable(port)
        assert str(tmp_path / "haproxy.cfg") in proxy.cmdline()
        with socket.create_connection(("127.0.0.1", port)):
            manager.send_signal(signal.SIGKILL)
            manager.wait()
            for _ in range(20):
                with closing(socket.socket()) as probe:
                    if probe.connect_ex(("127.0.0.1", port)):
                        break
                time.sleep(0.05)
            else:
                pytest.fail("HAProxy still listens")
        psutil.wait_procs([proxy], 15)
        assert not proxy.is_running()
    finally:
        manager.kill()
        with suppress(psutil.NoSuchProcess):
            proxy.kill()


@pytest.mark.parametrize(
    "variables", [{TRUSTED: "my-balancer"}, {REQUEST_S: "soon"}, {CERTIFICATE: "/nowhere/cert.pem"}]
)
def test_a_wrong_variable_is_an_error(tmp_path: Path, variables: dict[str, str]) -> None:
    """A wrong variable stops the start: a certificate that is missing must not mean plaintext."""
    with pytest.raises((ValueError, OSError)):
        changes_of(variables, tmp_path)
    configuration(tmp_path, free_port())
    done = subprocess.run(
        [str(write_launcher(tmp_path)), "-db", "-f", str(tmp_path / "haproxy.cfg")],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "HAProxy is not started" in done.stderr
