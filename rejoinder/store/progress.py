"""How the store tells a person what it is doing, without knowing what a terminal is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

Report = Callable[[str, int, int], None]
"""(activity, bytes done, bytes in all) of one model's work; 0 bytes in all means that the amount is unknown."""


class PullProgress(Protocol):
    """Receives the progress of several models, one after another."""

    def update(self, model: str, activity: str, done_bytes: int, total_bytes: int) -> None: ...
    def finish(self, model: str, outcome: str) -> None: ...


class SilentProgress:
    """The Progress of a caller that shows none."""

    def update(self, model: str, activity: str, done_bytes: int, total_bytes: int) -> None:
        pass

    def finish(self, model: str, outcome: str) -> None:
        pass


SILENT = SilentProgress()
