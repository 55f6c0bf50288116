"""The table of faults: what is done to which process, and what callers may notice at most."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

import psutil

from tests.chaos.system import Observation, System

PAUSE_S = 10.0
"""Seconds for which a stopped process is stopped."""


@dataclass(frozen=True)
class Row:
    """A signal to one process of a system with two hosts and two replicas of each stage.

    Attributes:
        role: Role of the process, see `System.processes`.
        kill: True to kill it, False to stop it (SIGSTOP) for PAUSE_S.
        watch_s: Seconds of observation after the fault.
        cut: Most calls that may be cut.
        silence_s: Longest silence of the other calls, in seconds.
        recovery_s: Most seconds until every new call is answered again.
        back_s: Most seconds until a call that resumes by itself is back.
        cheap: Whether the lane of the clusters has the row too.
    """

    role: str
    kill: bool
    watch_s: float
    cut: int
    silence_s: float
    recovery_s: float
    back_s: float = 0.0
    cheap: bool = False

    @property
    def name(self) -> str:
        """The fault, as the table names it."""
        return f"{'kill -9' if self.kill else f'SIGSTOP {PAUSE_S:.0f} s'} {self.role}"

    async def run(self, system: System) -> Observation:
        """Make the fault during live calls, and return what it did."""
        victims: list[psutil.Process] = []

        def strike() -> None:
            victims.append(system.processes(self.role)[0])
            (victims[0].kill if self.kill else victims[0].suspend)()

        try:
            undo = None if self.kill else (PAUSE_S, lambda: victims[0].resume())
            return await system.observe(strike, self.watch_s, undo)
        finally:
            for victim in victims:
                with suppress(psutil.NoSuchProcess):
                    victim.resume()

    def broken(self, found: Observation) -> list[str]:
        """Return the bounds that an observation breaks, each as a text."""
        recovery_s = float("inf") if found.recovery_s is None else found.recovery_s
        checks = {
            f"{found.cut} calls were cut, {self.cut} may be": found.cut <= self.cut,
            f"{found.silence_s:.1f} s of silence, {self.silence_s:g} s are allowed": found.silence_s <= self.silence_s,
            f"{found.unanswered} turns had no answer": not found.unanswered,
            f"new calls were answered after {recovery_s:.1f} s, not {self.recovery_s:g} s": recovery_s
            <= self.recovery_s,
        }
        back_s = float("inf") if found.back_s is None else found.back_s
        checks[f"a call was resumed after {back_s:.1f} s, not {self.back_s:g} s"] = back_s <= self.back_s
        return [text for text, holds in checks.items() if not holds]


ROWS = (
    Row("stt", kill=True, watch_s=12, cut=0, silence_s=3.0, recovery_s=1.0),
    Row("llm", kill=True, watch_s=12, cut=0, silence_s=3.0, recovery_s=1.0),
    Row("tts", kill=True, watch_s=12, cut=0, silence_s=3.0, recovery_s=1.0),
    Row("controller", kill=True, watch_s=12, cut=0, silence_s=2.0, recovery_s=1.0),
    Row("host", kill=True, watch_s=12, cut=4, silence_s=2.0, recovery_s=3.0, back_s=1.5, cheap=True),
    Row("haproxy", kill=True, watch_s=12, cut=4, silence_s=2.0, recovery_s=6.0, back_s=6.5, cheap=True),
    Row("stt", kill=False, watch_s=16, cut=0, silence_s=2.0, recovery_s=1.0, cheap=True),
    Row("llm", kill=False, watch_s=16, cut=0, silence_s=2.0, recovery_s=1.0),
    Row("tts", kill=False, watch_s=16, cut=0, silence_s=2.0, recovery_s=1.0),
    Row("controller", kill=False, watch_s=16, cut=0, silence_s=2.0, recovery_s=1.0),
    Row("host", kill=False, watch_s=16, cut=0, silence_s=11.0, recovery_s=4.0),
    Row("haproxy", kill=False, watch_s=16, cut=0, silence_s=11.0, recovery_s=11.0),
    Row("raylet", kill=False, watch_s=16, cut=0, silence_s=2.0, recovery_s=1.0),
    Row("gcs", kill=False, watch_s=16, cut=0, silence_s=2.0, recovery_s=1.0),
)
"""What happens to one of two hosts, one of two replicas of a stage, or a process of the platform."""
