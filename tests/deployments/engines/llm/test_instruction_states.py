"""The KV caches of instructions that new conversations restore."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from deployments.engines.llm import instruction_states
from deployments.engines.llm.instruction_states import FILES, InstructionStates


class _Slots(BaseHTTPRequestHandler):
    """HTTP handler that saves slots as llama.cpp does: it writes to the file that the request names."""

    calls: list[str]
    size: int

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert self.headers["Authorization"] == "Bearer key"
        self.calls.append(self.path)
        if self.size < 0:
            self.send_error(500)
            return
        file = Path(FILES) / asked["filename"]
        if "save" in self.path:
            file.write_bytes(bytes(self.size))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({"n_written": self.size, "n_read": file.stat().st_size}).encode())

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@pytest.fixture
def server() -> Iterator[tuple[type[_Slots], InstructionStates]]:
    handler = type("Handler", (_Slots,), {"calls": [], "size": 2**20})
    http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    states = InstructionStates(f"http://127.0.0.1:{http.server_port}", "key")
    yield handler, states
    states.close()
    http.shutdown()
    http.server_close()


def open_files() -> int:
    return sum("instructions" in os.readlink(f"{FILES}{number}") for number in os.listdir(FILES) if _is_open(number))


def _is_open(number: str) -> bool:
    return os.path.lexists(f"{FILES}{number}")


def test_the_second_conversation_restores(server: tuple[type[_Slots], InstructionStates]) -> None:
    """The instructions are computed and saved for the first conversation, and restored for the second one."""
    handler, states = server
    computed = []
    states.load("Be kind.", 3, lambda: computed.append(3))
    states.load("Be kind.", 5, lambda: computed.append(5))
    assert computed == [3]
    assert handler.calls == ["/slots/3?action=save", "/slots/5?action=restore"]


def test_the_memory_is_bounded(server: tuple[type[_Slots], InstructionStates], monkeypatch: pytest.MonkeyPatch) -> None:
    """Above KEPT_MB, the state that was used longest ago is freed, and computed again when it is needed."""
    _, states = server
    monkeypatch.setattr(instruction_states, "KEPT_MB", 2)
    computed: list[str] = []
    for text in ("a", "b", "a", "c", "a", "b"):
        states.load(text, 0, lambda text=text: computed.append(text))  # type: ignore[misc]
    assert computed == ["a", "b", "c", "b"]
    assert open_files() == 2
    states.close()
    assert open_files() == 0


def test_a_state_that_was_not_saved_is_not_kept(server: tuple[type[_Slots], InstructionStates]) -> None:
    """If llama.cpp refuses to save, the error is raised, no memory is held, and the next conversation tries again."""
    handler, states = server
    handler.size = -1
    with pytest.raises(OSError, match="500"):
        states.load("Be kind.", 3, lambda: None)
    assert open_files() == 0
    handler.size = 10
    states.load("Be kind.", 4, lambda: None)
    assert open_files() == 1
