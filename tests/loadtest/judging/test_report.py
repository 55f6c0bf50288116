"""The report's text: what it claims follows from the result."""

from __future__ import annotations

import pytest

from loadtest.judging.report import TIPS, html, largest_stage
from loadtest.results.result import RunOutcome
from loadtest.results.turn_record import WATERFALL
from rejoinder.core.settings.settings import Settings
from tests.loadtest.results.sample_results import latency, result


def test_the_largest_stage_has_its_share_and_a_switch() -> None:
    """By the mean, of the sum of all stages."""
    found = largest_stage(result(whole_ms=400))
    assert found is not None
    assert found.stage == "llm_first_token"
    assert found.share == pytest.approx(330 / 400)
    assert "hedging.budget" in found.switch


def test_turns_that_were_not_divided_have_no_largest_stage() -> None:
    """A server that reports no stages gets a page without a waterfall, not an error."""
    whole = result(latencies={"voice_to_voice": latency(400.0)})
    assert largest_stage(whole) is None
    page = html(whole)
    assert "The largest stage" not in page
    assert page.count("<svg") == 2


def test_every_stage_has_a_switch_that_exists() -> None:
    """The key named first is a setting of ray_config.yaml (where callers are is none)."""
    assert TIPS.keys() == set(WATERFALL)
    document = Settings().model_dump()
    for stage, switch in TIPS.items():
        if stage == "delivery":
            continue
        section, *path = switch.replace(",", " ").replace(":", " ").split()[0].split(".")
        value = document[section]
        for key in path:
            value = value[key]


def test_an_invalid_run_says_so_at_the_top() -> None:
    """With the causes, before any number."""
    page = html(result(RunOutcome.INVALID, causes=("send lateness p99 9 ms, limit 5",)))
    banner = page.index("so nothing here judges the system")
    assert banner < page.index("send lateness p99 9 ms, limit 5") < page.index("What came of the calls")
    assert "so nothing here judges the system" not in html(result())


def test_a_run_without_a_turn_has_a_report() -> None:
    """Nothing was measured: a page with its verdicts, without pictures of nothing."""
    page = html(result(whole_ms=None, timeline=(), regions=()))
    assert "<svg" not in page
    assert "not measured" in page


def test_what_a_server_says_is_text() -> None:
    """An engine's name cannot put anything into the page."""
    page = html(result(engines={"llm": "<script>alert(1)</script>"}))
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
