"""Tests of `ServerView`, which reads a server's engines and memory over HTTP, also from servers without these."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from loadtest.generator.server_view import ServerView
from loadtest.scenario.scenario import Scenario
from rejoinder.core.errors import BackendError


@contextmanager
def answering(pages: dict[str, Any], status: int = 200) -> Iterator[ServerView]:
    """Run an HTTP server with these pages and yield the load generator's `ServerView` of it.

    `pages` maps each path to its content: strings are sent as text, other values as JSON. In both, PORT becomes the
    server's port. Every page is sent with `status`.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # name required by http.server
            page = pages.get(self.path, {"detail": "Not Found"})
            body = page if isinstance(page, str) else json.dumps(page)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        port = server.server_address[1]
        for path, page in pages.items():
            pages[path] = json.loads(json.dumps(page).replace("PORT", str(port)))
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield ServerView(Scenario(f"ws://127.0.0.1:{port}/v1", 1, 1))
        finally:
            server.shutdown()
            thread.join()


def test_a_server_reports_its_engines_and_memory() -> None:
    """`engines` is read from /v1/models. `memory_mb` is the sum over all replicas in MiB."""
    pages = {
        "/v1/models": {"data": [{"engines": {"stt": "emulated 100 ms"}}]},
        "/metrics/targets": [
            {"targets": ["127.0.0.1:PORT"], "labels": {"stage": "stt", "replica": replica}} for replica in "ab"
        ],
        "/metrics": f"# TYPE process_resident_memory_bytes gauge\nprocess_resident_memory_bytes {3 * 2**20}\n",
    }
    with answering(pages) as view:
        assert view.engines() == {"stt": "emulated 100 ms"}
        assert view.memory_mb() == 6.0


def test_another_server_reports_neither_engines_nor_memory() -> None:
    """For a server that answers like OpenAI's, `engines` is empty and `memory_mb` is None. No error is raised."""
    with answering({"/v1/models": {"data": [{"id": "a-model"}]}}) as view:
        assert view.engines() == {}
        assert view.memory_mb() is None


@pytest.mark.parametrize(("page", "status"), [([1], 200), ({"data": []}, 200), ("no JSON", 200), ({"data": [{}]}, 401)])
def test_a_server_that_does_not_answer_is_named(page: Any, status: int) -> None:
    """If /v1/models is not as expected or has an HTTP error status, `engines` raises BackendError."""
    with answering({"/v1/models": page}, status) as view, pytest.raises(BackendError, match="does not answer"):
        view.engines()
