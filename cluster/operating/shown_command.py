"""A long command on this computer whose output is shown while it runs."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from rejoinder.core.errors import BackendError

_LAST_LINES = 4


def run_shown(
    words: Sequence[str], environment: Mapping[str, str], show: Callable[[str], None], *, timeout_s: float
) -> None:
    """Run a command and pass on each line of its output. It ends with this function, together with its children.

    Args:
        words: The command line.
        environment: All environment variables of the command, by name.
        show: Receives each line without the characters at its end. Empty lines are left out.
        timeout_s: Longest duration in seconds.

    Raises:
        BackendError: The command is missing, fails or does not end in time. The message has its last lines.
    """
    name = os.path.basename(words[0])
    try:
        process = subprocess.Popen(
            words,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,  # a group of its own, so that its children can be killed with it
        )
    except FileNotFoundError:
        raise BackendError(f"the program {words[0]} is missing.", "Install Rejoinder's environment here.") from None
    late = threading.Event()

    def stop() -> None:
        late.set()
        _kill(process)

    timer = threading.Timer(timeout_s, stop)
    timer.start()
    last: deque[str] = deque(maxlen=_LAST_LINES)
    try:
        assert process.stdout is not None
        for text in process.stdout:
            if line := text.strip():
                last.append(line)
                show(line)
        status = process.wait()
    finally:
        timer.cancel()
        _kill(process)
    if late.is_set():
        raise BackendError(f"`{name}` did not end within {timeout_s:g} s: {' '.join(last)}.")
    if status:
        raise BackendError(f"`{name}` failed: {' '.join(last) or f'exit status {status}'}.")


def _kill(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
