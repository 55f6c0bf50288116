"""What one check of `rejoinder doctor` found."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Grade(Enum):
    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """One check; `fix` is empty when it is ok."""

    check: str
    grade: Grade
    found: str
    fix: str = ""
