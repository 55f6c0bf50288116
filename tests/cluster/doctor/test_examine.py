"""Tests of what `rejoinder doctor --address` makes of the nodes' reports, and of causes in Serve's messages."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.doctor.examine import MAX_SKEW_S, merged, skew
from cluster.doctor.finding import Finding, Grade
from cluster.doctor.machine import MachineReport, needed_models, source_digest
from cluster.launch import MAX_CAUSE, application_error, version_error
from rejoinder.core.errors import ConfigError
from rejoinder.core.settings.serve_file import parse_serve_file

OK = Finding("disk", Grade.OK, "5 GiB")
BAD = Finding("disk", Grade.WARN, "1 GiB", "Free up 2 GiB.")


def report(*findings: Finding) -> MachineReport:
    """Return the report of a node with these findings."""
    return MachineReport(list(findings), clock_s=0.0, source="abc")


def test_a_check_that_is_ok_everywhere_is_one_row() -> None:
    """The row says on how many nodes the check was made."""
    assert merged([("a", report(OK)), ("b", report(OK))]) == [Finding("disk", Grade.OK, "5 GiB (2 nodes)")]


def test_every_node_with_a_problem_is_named() -> None:
    """Each node where a check is not ok has a row of its own with the fix."""
    rows = merged([("a", report(BAD)), ("b", report(OK)), ("c", report(BAD))])
    assert [row.found for row in rows] == ["a: 1 GiB", "c: 1 GiB"]
    assert {row.fix for row in rows} == {BAD.fix}


@pytest.mark.parametrize(
    ("clock_s", "warns"),
    [(100.5, False), (100.0 - MAX_SKEW_S, False), (98.0, True), (101.0 + MAX_SKEW_S, False), (103.0, True)],
)
def test_a_clock_that_differs_for_certain_is_a_warning(clock_s: float, warns: bool) -> None:
    """The answer took from 100 to 101 s, so a clock between these times, or little outside, may be right."""
    rows = list(skew("a", clock_s, 100.0, 101.0))
    assert bool(rows) is warns
    assert all(row.grade is Grade.WARN and "a: differs by" in row.found for row in rows)


def test_only_models_of_stages_that_may_run_on_a_node_are_needed_there() -> None:
    """A node that the language model is not placed on needs no language model, but it needs the other ones."""
    args: dict[str, Any] = {"llm": {"resources": {"label_selector": {"group": "gpu"}}}}
    document = parse_serve_file({"applications": [{"args": args}]})
    here = needed_models(document, {"group": "cpu"})
    assert "args.llm.model" not in here.values()
    assert needed_models(document, {"group": "gpu"}) == needed_models(document)
    assert here.items() < needed_models(document).items()


def test_the_digest_is_that_of_the_code() -> None:
    """Two calls give the same digest of the project's source code."""
    assert source_digest() == source_digest() != ""


def test_other_versions_of_ray_or_python_are_named() -> None:
    """Ray's own error about versions becomes one sentence with both pairs of versions and the fix."""
    from ray._private.utils import check_version_info

    metadata = {"ray_version": "2.10.0", "python_version": "3.9.1"}
    with pytest.raises(RuntimeError) as mismatch:
        check_version_info(metadata, "here")
    error = version_error("h:6379", "--address", mismatch.value)
    assert isinstance(error, ConfigError)
    assert "Ray 2.10.0 and Python 3.9.1, here Ray 2.60" in error.message
    assert "\n" not in str(error)
    assert version_error("h:6379", "--address", RuntimeError("other")) is None


TRACEBACK = """The deployment failed to start 3 times in a row. Error:
ray::ServeReplica.initialize_and_get_metadata() (pid=1, ip=10.0.0.1)
  File "/x/llm.py", line 9, in _warm_up
rejoinder.core.errors.ConfigError: args.llm.api_key_env: m (OpenAI API): Incorrect API key (HTTP 401). Correct the key.

The above exception was the direct cause of the following exception:

  File "/x/replica.py", line 5
RuntimeError: replica failed
"""


def test_the_typed_error_is_the_cause_of_a_message_of_serve() -> None:
    """Of a message with tracebacks, only the text of the typed error remains."""
    found = application_error(TRACEBACK)
    assert found == "args.llm.api_key_env: m (OpenAI API): Incorrect API key (HTTP 401). Correct the key."


def test_without_a_typed_error_the_last_line_is_the_cause() -> None:
    """Another message is cut to its last line, and that to MAX_CAUSE characters."""
    assert application_error("a\nValueError: no\n\n") == "ValueError: no"
    assert application_error("") == ""
    assert len(application_error("x" * 3000)) <= MAX_CAUSE + 4
