"""`python -m tests.chaos.table` makes every fault of the table during live calls and prints what happened.

Its output is the table of docs/results/reliability.md.
"""

from __future__ import annotations

import asyncio
import platform
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from rejoinder.core.settings.settings import ModelStoreSettings
from rejoinder.store.model_store import open_store
from tests.chaos.endings import Ending, end_by
from tests.chaos.rows import ROWS
from tests.chaos.system import Observation, System, settings
from tests.system.harness.served import serving
from tests.system.harness.speech import speak_without_pause

HEAD = (
    "| fault | calls cut | wait for a sound | longest silence | turns without an answer | resumed after | "
    "new calls answered after | new calls not answered | `/healthz` | bounds |",
    "|---|---|---|---|---|---|---|---|---|---|",
)
ENDINGS_HEAD = (
    "| fault, one machine | calls cut | wait for a sound | longest silence | turns without an answer | resumed after | "
    "new calls answered after | new calls not answered | `/healthz` | `rejoinder serve` | left behind | it said |",
    "|---|---|---|---|---|---|---|---|---|---|---|---|",
)
ENDINGS = {"raylet": 5.0, "gcs": 45.0, "serve": 5.0}
"""Processes of a system of one machine whose death ends it, and for how many seconds the callers are observed."""


def _cells(seen: Observation) -> str:
    reasons = ", ".join(f"{number} x {reason}" for reason, number in seen.reasons.items()) or "none"
    recovery = "never" if seen.recovery_s is None else "at once" if not seen.recovery_s else f"{seen.recovery_s:.1f} s"
    back = "never" if seen.back_s is None else f"{seen.back_s:.1f} s ({seen.broken})" if seen.broken else "-"
    health = ", ".join(seen.health) or "ok"
    silence = "-" if seen.cut == seen.calls else f"{seen.silence_s:.1f} s"
    sound = "-" if seen.cut == seen.calls else f"{seen.sound_s:.1f} s"
    cells = (f"{seen.cut} of {seen.calls}", sound, silence, str(seen.unanswered), back, recovery, reasons, health)
    return " | ".join(cells)


def _ending(role: str, ending: Ending) -> str:
    ended = "did not end" if ending.ended_s is None else f"ended after {ending.ended_s:.1f} s, status {ending.status}"
    left = ", ".join(ending.left) or "nothing"
    said = ending.sentence if ending.status == 1 else "nothing"
    return f"| kill -9 {role} | {_cells(ending.seen)} | {ended} | {left} | {said} |"


def _rows(question: bytes, wanted: list[str]) -> Iterator[str]:
    rows = [row for row in ROWS if not wanted or row.name in wanted]
    with (
        tempfile.TemporaryDirectory() as folder,
        serving(Path(folder), settings(hosts=2, replicas=2)) as served,
    ):
        system = System(served, question, hosts=2, replicas=2)
        for row in rows:
            system.await_whole()
            found = asyncio.run(row.run(system))
            yield f"| {row.name} | {_cells(found)} | {'; '.join(row.broken(found)) or 'held'} |"


def main(wanted: list[str]) -> None:
    """Print the table, and the endings. With arguments, only the rows and endings with these names."""
    question = speak_without_pause(open_store(ModelStoreSettings()), "What is the capital of France?")
    memory = round(psutil.virtual_memory().total / 2**30)
    print(f"{time.strftime('%Y-%m-%d %H:%M')}, {psutil.cpu_count()} cores, {memory} GB, {platform.platform()}\n")
    if not wanted or set(wanted) - set(ENDINGS):
        print("\n".join(HEAD), flush=True)
        for line in _rows(question, wanted):
            print(line, flush=True)
        print()
    if not wanted or set(wanted) & set(ENDINGS):
        print("\n".join(ENDINGS_HEAD), flush=True)
    for role, watch_s in ENDINGS.items():
        if not wanted or role in wanted:
            with tempfile.TemporaryDirectory() as folder:
                print(_ending(role, end_by(role, Path(folder), question, watch_s)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
