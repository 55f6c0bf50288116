"""A model hub for tests: an HTTP server with the paths and headers of the Hugging Face hub, which serves `files`."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

REVISION = "a" * 40


@contextmanager
def serve_hub(files: Mapping[str, bytes]) -> Iterator[str]:
    """Serve files while the context is open, and yield the hub's address.

    `files` maps "owner/repo/REVISION/path" to the content. Every other path is answered with 404.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer()

        def do_GET(self) -> None:
            self.wfile.write(self._answer())

        def log_message(self, format: str, *args: object) -> None:
            """Print no log line for a request."""

        def _answer(self) -> bytes:
            content = files.get(self.path.lstrip("/").replace("/resolve/", "/", 1))
            self.send_response(404 if content is None else 200)
            self.send_header("Content-Length", str(len(content or b"")))
            if content is None:
                self.send_header("X-Error-Code", "EntryNotFound")
            else:
                self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
                self.send_header("X-Repo-Commit", REVISION)
            self.end_headers()
            return content or b""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
