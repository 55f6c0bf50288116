"""Result of one check of `rejoinder doctor`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Grade(Enum):
    """Severity of a finding. FAIL: Rejoinder cannot run as configured; WARN: it runs worse."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """Result of one check.

    Attributes:
        check: Name of the check, for example "memory".
        grade: Severity.
        found: Result of the check as text.
        fix: How to solve the problem; "" if the grade is OK.
    """

    check: str
    grade: Grade
    found: str
    fix: str = ""
