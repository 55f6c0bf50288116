"""Progress reports of the store, independent of how they are displayed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

Report = Callable[[str, int, int], None]
"""Function that receives the progress for one model: the activity in words, the bytes done, and the total bytes.

A total of 0 means that the amount is unknown.
"""


class PullProgress(Protocol):
    """Receiver of the progress of several models, one after another."""

    def update(self, model: str, activity: str, done_bytes: int, total_bytes: int) -> None:
        """Report the progress of one activity, such as a download, for a model. `total_bytes` is 0 if unknown."""
        ...

    def finish(self, model: str, outcome: str) -> None:
        """Report that the work on a model is complete, and its outcome in words."""
        ...


class SilentProgress:
    """`PullProgress` that displays nothing."""

    def update(self, model: str, activity: str, done_bytes: int, total_bytes: int) -> None:
        """Do nothing."""

    def finish(self, model: str, outcome: str) -> None:
        """Do nothing."""


SILENT = SilentProgress()
