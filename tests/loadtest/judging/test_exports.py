"""Tests of the JUnit and Markdown files of a load run."""

from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree

from loadtest.judging.exports import junit, markdown
from loadtest.judging.verdicts import guide_verdicts
from loadtest.results.result import RunOutcome, RunResult
from tests.loadtest.results.sample_results import result


def failed() -> RunResult:
    """Return a failed run: one limit is missed, one is undecided, and the guide's tables follow them."""
    good = result(RunOutcome.FAIL, whole_ms=1500.0)
    missed = replace(good.verdicts[0], name="end to end p95", outcome=RunOutcome.FAIL, needed=0)
    return replace(good, verdicts=(*good.verdicts, missed, *guide_verdicts({})))


def test_junit_has_a_case_for_each_limit_that_decides() -> None:
    """FAIL is a failure with the cause, UNDECIDED is skipped, and the self-checks of the generator passed."""
    suite = ElementTree.fromstring(junit(failed()))
    assert {key: suite.get(key) for key in ("tests", "failures", "skipped", "errors")} == {
        "tests": "3",
        "failures": "1",
        "skipped": "1",
        "errors": "0",
    }
    (failure,) = suite.iter("failure")
    assert "first token is late" in (failure.text or "")
    (skipped,) = suite.iter("skipped")
    assert "7 more turns" in skipped.get("message", "")


def test_an_invalid_run_is_an_error() -> None:
    """If the load generator failed its self-checks, its test case is an error with the reason."""
    suite = ElementTree.fromstring(junit(result(RunOutcome.INVALID, causes=("frames were late.",))))
    assert [error.get("message") for error in suite.iter("error")] == ["frames were late."]


def test_the_summary_has_the_cause_and_the_limits() -> None:
    """The Markdown summary begins with the outcome and the cause, and has one row for each deciding limit."""
    text = markdown(failed())
    assert text.startswith("## Load test: FAIL (good tier)\n\n1. **The language model's first token is late.**")
    assert text.count("| good tier | p50 |") == 1
    assert text.count("| end to end p95 | p50 |") == 1
    assert "total, good" not in text
