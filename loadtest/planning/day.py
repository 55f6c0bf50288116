"""A day's calls, from a CSV file, and the conversations that they make at the same time.

The file has the columns `time` (HH:MM) and `calls` (calls that begin in the interval), as call centres and telephone
systems export them. The intervals are equal, from one minute to one hour, and cover the day from 00:00.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from rejoinder.core.errors import ConfigError

DAY_MINUTES = 24 * 60
MOST_CALLS = 1e7
"""Most calls of one interval. A larger number is a mistake."""

_TIME = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)")
_FIELD = "--day"


@dataclass(frozen=True, slots=True)
class DayLoad:
    """The load of a day.

    Attributes:
        interval_min: Length of an interval in minutes.
        calls: Number of calls that begin in each interval.
        sessions: Mean number of concurrent calls at the end of each interval.
    """

    interval_min: int
    calls: tuple[float, ...]
    sessions: tuple[float, ...]

    @property
    def most(self) -> int:
        """Concurrent calls at the highest load, rounded up."""
        return max(1, math.ceil(max(self.sessions)))

    @property
    def least(self) -> int:
        """Concurrent calls at the lowest load, rounded up, at least one."""
        return max(1, math.ceil(min(self.sessions)))

    def at(self, sessions: float) -> str:
        """Return the time of day, HH:MM, at which an interval ends whose load is nearest to `sessions`."""
        nearest = min(range(len(self.sessions)), key=lambda index: abs(self.sessions[index] - sessions))
        minutes = (nearest + 1) * self.interval_min % DAY_MINUTES
        return f"{minutes // 60:02}:{minutes % 60:02}"


def concurrent(calls: Iterable[float], interval_s: float, call_s: float) -> tuple[float, ...]:
    """Return the mean number of concurrent calls at the end of each interval of a day that repeats.

    Calls begin evenly within an interval and have exponential lengths: with the mean length m and the rate r, the mean
    number a approaches r * m, as a(t) = r * m + (a(0) - r * m) * exp(-t / m) (the queue M/G/inf, with the lengths that
    the load generator also has). Its maximum and minimum are at ends of intervals.

    Args:
        calls: Number of calls that begin in each interval.
        interval_s: Length of an interval in seconds.
        call_s: Mean length of a call in seconds.
    """
    offered = [count / interval_s * call_s for count in calls]
    kept = math.exp(-interval_s / call_s)
    now = sum(load * (1 - kept) * kept ** (len(offered) - 1 - at) for at, load in enumerate(offered))
    now /= 1 - kept ** len(offered)
    found = []
    for load in offered:
        now = load + (now - load) * kept
        found.append(now)
    return tuple(found)


def read_day(path: Path, call_s: float) -> DayLoad:
    """Return the load of the day in a CSV file.

    Args:
        path: The file.
        call_s: Mean length of a call in seconds.

    Raises:
        ConfigError: The file cannot be read, or a line is wrong. The error names the line and the fix.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read ({error}).", "Name a CSV file in UTF-8.", field=_FIELD) from error
    rows = [row for row in csv.reader(lines) if any(cell.strip() for cell in row)]
    if not rows or [cell.strip().lower() for cell in rows[0]] != ["time", "calls"]:
        raise ConfigError("the first line is not the header.", "Begin the file with `time,calls`.", field=_FIELD)
    parsed = [_row(number, row) for number, row in enumerate(rows[1:], start=2)]
    interval_min = _interval([minute for minute, _ in parsed])
    calls = tuple(count for _, count in parsed)
    if not any(calls):
        raise ConfigError("the day has no calls.", "Write the calls of each interval.", field=_FIELD)
    return DayLoad(interval_min, calls, concurrent(calls, interval_min * 60.0, call_s))


def _row(number: int, row: list[str]) -> tuple[int, float]:
    """Return the minute of the day and the number of calls in a row of the file."""
    try:
        time, calls = (cell.strip() for cell in row)
        hours, minutes = _TIME.fullmatch(time).groups()  # type: ignore[union-attr]  # None: AttributeError
        count = float(calls)
    except (ValueError, AttributeError):
        count = math.nan
    if not 0 <= count <= MOST_CALLS:
        raise ConfigError(
            f"row {number} is {','.join(row)!r}.",
            "Write HH:MM,CALLS with at least 0 calls, as 09:30,120.",
            field=_FIELD,
        )
    return int(hours) * 60 + int(minutes), count


def _interval(minutes: list[int]) -> int:
    """Return the length of the intervals in minutes. They must be equal and cover the day from 00:00."""
    length = minutes[1] - minutes[0] if len(minutes) > 1 else 0
    if not 1 <= length <= 60 or minutes != list(range(0, DAY_MINUTES, length)):
        raise ConfigError(
            "the times are not equal intervals of 1 to 60 minutes from 00:00 to the end of the day.",
            "Write one row for each hour (or minute) of the day, in order, with 0 where no call begins.",
            field=_FIELD,
        )
    return length
