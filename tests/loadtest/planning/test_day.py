"""Tests of a day's calls: the file, and the conversations at the same time that follow from it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from loadtest.planning.day import concurrent, read_day
from rejoinder.core.errors import ConfigError


def hours(calls: Sequence[float]) -> str:
    return "time,calls\n" + "".join(f"{hour:02}:00,{count:g}\n" for hour, count in enumerate(calls))


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_even_calls_are_littles_law(tmp_path: Path) -> None:
    """120 calls an hour of 3 minutes are 6 calls at the same time, all day."""
    load = read_day(written(tmp_path / "day.csv", hours([120] * 24)), call_s=180)
    assert load.sessions == pytest.approx([6.0] * 24)
    assert (load.least, load.most, load.interval_min) == (6, 6, 60)


def test_the_peak_and_the_lowest_load_are_found(tmp_path: Path) -> None:
    """1,200 calls of 3 minutes from 10:00 to 11:00 approach 60 calls at 11:00, after 120 an hour in the night."""
    load = read_day(written(tmp_path / "day.csv", hours([120] * 10 + [1200] + [120] * 13)), call_s=180)
    assert (load.most, load.at(load.most)) == (60, "11:00")
    assert load.least == 6


def test_calls_go_on_into_the_next_interval(tmp_path: Path) -> None:
    """A minute with 60 calls of 10 minutes leaves 57 at its end and 52 a minute later.

    60 calls, begun evenly within a minute, are 600 * (1 - exp(-1/10)) = 57.1 at its end. After another minute
    57.1 * exp(-1/10) = 51.7 go on.
    """
    minutes = [60.0 if minute == 600 else 0.0 for minute in range(1440)]
    text = "time,calls\n" + "".join(f"{m // 60:02}:{m % 60:02},{count:g}\n" for m, count in enumerate(minutes))
    load = read_day(written(tmp_path / "day.csv", text), call_s=600)
    assert load.sessions[600:602] == pytest.approx([57.1, 51.66], abs=0.01)
    assert (load.interval_min, load.at(load.sessions[600])) == (1, "10:01")


def test_a_day_follows_the_day_before() -> None:
    """Calls that begin before midnight go on after it: the first interval of a day has those of the last."""
    first = concurrent([0.0] * 23 + [100.0], interval_s=3600, call_s=3600)[0]
    assert first == pytest.approx(100 * 0.632 * 0.368, rel=0.01)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "first line is not the header"),
        ("hour,calls\n", "first line is not the header"),
        ("time,calls\n00:00,1\n01:00,2\n", "equal intervals"),
        (hours([1] * 23), "equal intervals"),
        (hours([1] * 24).replace("05:00", "05:30"), "equal intervals"),
        (hours([1] * 24).replace("05:00,1\n", ""), "equal intervals"),
        (hours([1] * 24).replace("05:00,1", "05:00,-1"), "row 7 is '05:00,-1'"),
        (hours([1] * 24).replace("05:00,1", "05:00,nan"), "row 7"),
        (hours([1] * 24).replace("05:00,1", "05:00"), "row 7"),
        (hours([1] * 24).replace("05:00", "29:00"), "row 7"),
        (hours([0] * 24), "the day has no calls"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, text: str, says: str) -> None:
    """The error has the field `--day`, and the row and the fix."""
    with pytest.raises(ConfigError, match=says) as refused:
        read_day(written(tmp_path / "day.csv", text), call_s=60)
    assert refused.value.field == "--day"
    assert refused.value.remedy


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    """A file that cannot be read is named."""
    with pytest.raises(ConfigError, match=r"none\.csv cannot be read"):
        read_day(tmp_path / "none.csv", call_s=60)
