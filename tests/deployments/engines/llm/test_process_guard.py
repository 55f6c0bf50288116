"""Child processes end when their guarded parent is killed."""

from __future__ import annotations

import signal
import subprocess
import sys

import psutil
import pytest

from deployments.engines.llm.process_guard import ProcessGuard, descendants

GONE_S = 15.0
SLEEP = "import time; time.sleep(60)"
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
HOLDER = """
import subprocess, sys, time
from deployments.engines.llm.process_guard import ProcessGuard
guard = ProcessGuard()
with guard.watching():
    child = subprocess.Popen([sys.executable, "-c", {child!r}], stdout=subprocess.PIPE)
    if {wait!r}: child.stdout.readline()
    if {early!r}:
        while child.pid not in guard.pids: time.sleep(0.05)
        print(child.pid, flush=True)
        time.sleep(60)
print(child.pid, flush=True)
time.sleep(60)
"""


def killed_holder(child: str, *, wait: bool = False, early: bool = False) -> psutil.Process:
    """Start a guarded parent and child, kill the parent with SIGKILL and return the child.

    With `early` the parent is killed inside `watching()`, the block that registers new child processes. With `wait`
    the parent is killed only after the child has started.
    """
    program = HOLDER.format(child=child, wait=wait, early=early)
    holder = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    orphan = psutil.Process(int(holder.stdout.readline()))
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    holder.stdout.close()
    return orphan


@pytest.mark.parametrize(("child", "wait"), [(SLEEP, False), (STUBBORN, True)], ids=["polite", "stubborn"])
def test_a_killed_process_takes_its_engine_with_it(child: str, wait: bool) -> None:
    """After kill -9 of the parent, the guard terminates the child, and kills it if it ignores SIGTERM."""
    orphan = killed_holder(child, wait=wait)
    assert not psutil.wait_procs([orphan], GONE_S)[1]


def test_a_parent_that_is_killed_during_startup_takes_its_child_with_it() -> None:
    """If the parent is killed inside `watching()`, while its engine still loads, the child ends too."""
    assert not psutil.wait_procs([killed_holder(SLEEP, early=True)], GONE_S)[1]


def test_a_released_guard_ends_no_process() -> None:
    """After `release`, the guard has ended and the registered process continues to run."""
    guard = ProcessGuard()
    with guard.watching():
        child = subprocess.Popen([sys.executable, "-c", SLEEP])
    with child:
        assert guard.pids == {child.pid}
        assert child.pid in descendants()
        guard.release()
        guard.release()
        assert child.poll() is None
        child.kill()
