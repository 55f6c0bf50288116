"""Watch over the Ray head of a running `rejoinder serve`, so that the command ends with a sentence if the head dies.

`rejoinder.core.resilience.head_fate` decides. Without this, the command would wait for a head that is gone, or Ray
would abort it a minute later and leave processes behind.
"""

from __future__ import annotations

import json
import socket
import threading
import time
import urllib.request
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

import psutil

from rejoinder.core.errors import BackendError
from rejoinder.core.resilience.head_fate import HeadFate, HeadState, HeadVerdict

LOOK_S = 0.5
"""Seconds between two looks at the head."""
CALLS_GO_ON_S = 50.0
"""Seconds for which calls go on without the GCS: less than the minute after which Ray ends its processes."""
ANSWER_S = 2.0
"""Seconds that a server has to answer."""
ANSWERS = 10
"""Answers of hosts, one every LOOK_S, from which the number of calls is taken."""


class HeadLost(BackendError):
    """Raised if the Ray head of a running system is gone, or does not stop. Ray must not be called after that."""


class Head(Protocol):
    """A Ray head that can be looked at."""

    def state(self) -> HeadState:
        """Return which of its processes are there. The calls are not filled in."""
        ...


class OwnProcesses:
    """The GCS and the raylet that this process has started."""

    def __init__(self) -> None:
        """Find the processes. Call this after Ray was started."""
        children = {child.name(): child for child in psutil.Process().children()}
        self._gcs, self._raylet = children.get("gcs_server"), children.get("raylet")

    def state(self) -> HeadState:
        """Return which of the two processes run."""
        return HeadState(gcs=_runs(self._gcs), raylet=_runs(self._raylet))


class RemoteGcs:
    """The GCS of a cluster that this process has joined."""

    def __init__(self, address: str) -> None:
        """Remember the GCS at `address`, HOST:PORT."""
        host, _, port = address.rpartition(":")
        self._address = (host.strip("[]"), int(port))

    def state(self) -> HeadState:
        """Return whether the GCS accepts connections."""
        try:
            with socket.create_connection(self._address, timeout=ANSWER_S):
                return HeadState()
        except OSError:
            return HeadState(gcs=False)


def _runs(process: psutil.Process | None) -> bool:
    if process is None:
        return False
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def await_end(stop: threading.Event, head: Head, url: str, say: Callable[[str], None]) -> None:
    """Return when `stop` is set.

    Args:
        stop: The event that ends the command.
        head: The Ray head of the system.
        url: Base URL (http) of the system.
        say: Called with a sentence if the head has died but calls still go on, and when it is back.

    Raises:
        HeadLost: The head has died, and no call goes on, or `stop` is set while the head is gone.
    """
    fate, told, calls = HeadFate(CALLS_GO_ON_S), HeadVerdict.RUNNING, _Calls(url)
    while not stop.wait(LOOK_S):
        state = head.state()
        if not state.gcs:
            state = HeadState(gcs=False, raylet=state.raylet, calls=calls.ask())
        verdict = fate.step(state, time.monotonic())
        if verdict is HeadVerdict.ENDED:
            part = "GCS, its table of nodes and processes" if state.raylet else "raylet, its process of this machine"
            raise HeadLost(
                f"Ray's head has died ({part}), so nothing that fails is replaced.",
                "Start `rejoinder serve` again; see Ray's logs or the kernel's (out of memory) for the cause.",
            )
        if verdict is not told:
            lost = f"Ray's head (GCS) is gone. Calls go on for up to {CALLS_GO_ON_S:.0f} s, then this command ends."
            say(lost if verdict is HeadVerdict.ENDING else "Ray's head (GCS) is back.")
            told = verdict
    if told is HeadVerdict.ENDING:
        raise HeadLost("Stopped while Ray's head (GCS) was gone, so the application was not removed from it.")


class _Calls:
    """Number of calls of a system, from `/healthz`, which each host answers without Ray.

    Each question goes to one of the hosts. There are no calls if the last ANSWERS answers all said so.
    """

    def __init__(self, url: str) -> None:
        self._url = f"{url.replace('0.0.0.0', '127.0.0.1')}/healthz"
        self._answers: deque[int] = deque(maxlen=ANSWERS)

    def ask(self) -> int | None:
        """Return the largest of the last answers, None if there are fewer than ANSWERS."""
        try:
            with urllib.request.urlopen(self._url, timeout=ANSWER_S) as answer:
                self._answers.append(int(json.load(answer)["sessions"]))
        except (OSError, ValueError, KeyError, TypeError):
            pass  # a host that does not answer may have calls
        return max(self._answers) if len(self._answers) == ANSWERS else None


def within(seconds: float, act: Callable[[], object]) -> bool:
    """Call a function in another thread, and return whether it has ended after at most `seconds`.

    Ray's functions that stop something wait without end for a process that is gone or stopped. An exception of the
    function is dropped: what it has not stopped is killed afterwards.
    """
    ended = threading.Event()

    def run() -> None:
        with suppress(Exception):
            act()
        ended.set()

    threading.Thread(target=run, name="stop", daemon=True).start()
    return ended.wait(seconds)
