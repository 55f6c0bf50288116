"""KV caches of instructions, which a new conversation restores into its slot of llama.cpp.

Most conversations of a server have the same instructions. On one core, llama.cpp computes the KV cache of 166 tokens in
2.1 s, and restores it in 2 ms (Qwen2.5-0.5B, 2 MB). It restores a slot only from a file, so the states are files in
memory, which belong to this process and end with it. They contain instructions only, and never a caller's words.
"""

from __future__ import annotations

import json
import os
import urllib.request
from collections.abc import Callable
from threading import Lock

FILES = "/proc/self/fd/"
"""Folder in which llama.cpp finds the states: `slot_save_path` of its parameters."""
KEPT_MB = 128
"""Maximum size of all states together. The state that was used longest ago goes first."""
TIMEOUT_S = 30.0
"""Maximum time in seconds that llama.cpp may take to save or restore a state. It waits until the slot is idle."""


class InstructionStates:
    """Saved KV caches, by instructions. Thread-safe."""

    def __init__(self, address: str, key: str) -> None:
        """Create an empty store for the llama.cpp server at `address` (an HTTP URL), with its API key."""
        self._address = address
        self._key = key
        # File descriptor and size in bytes of each state. The one that was used last is at the end.
        self._states: dict[str, tuple[int, int]] = {}
        self._lock = Lock()

    def load(self, instructions: str, slot: int, compute: Callable[[], None]) -> None:
        """Put the KV cache of `instructions` into a slot, and keep it for later conversations.

        Others that need a state wait meanwhile, so that no two threads compute the same one.

        Args:
            instructions: The start of the prompt.
            slot: Number of the slot.
            compute: Function that computes the KV cache of the instructions in the slot. It is called if no state of
                them is kept.

        Raises:
            OSError: llama.cpp refused or did not answer.
        """
        with self._lock:
            if (state := self._states.pop(instructions, None)) is not None:
                self._states[instructions] = state
                self._act("restore", slot, state[0])
                return
            compute()
            file = os.memfd_create("instructions")
            try:
                size = int(self._act("save", slot, file)["n_written"])
            except BaseException:
                os.close(file)
                raise
            self._states[instructions] = (file, size)
            while sum(size for _, size in self._states.values()) > KEPT_MB * 2**20:
                os.close(self._states.pop(next(iter(self._states)))[0])

    def close(self) -> None:
        """Free the memory."""
        with self._lock:
            while self._states:
                os.close(self._states.popitem()[1][0])

    def _act(self, action: str, slot: int, file: int) -> dict[str, int]:
        request = urllib.request.Request(
            f"{self._address}/slots/{slot}?action={action}",
            data=json.dumps({"filename": str(file)}).encode(),
            headers={"Authorization": f"Bearer {self._key}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
            answer: dict[str, int] = json.load(response)
        return answer
