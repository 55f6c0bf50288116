"""The HTML report shows the outcome, causes and measurements of a result."""

from __future__ import annotations

from dataclasses import replace

import pytest

from loadtest.judging.findings import TIPS
from loadtest.judging.report import EXPLANATIONS, html, largest_stage
from loadtest.results.result import Counts, FailingCalls, RunOutcome
from loadtest.results.turn_record import WATERFALL
from rejoinder.core.settings.settings import Settings
from tests.loadtest.results.sample_results import latency, result


def test_the_largest_stage_has_its_share_and_a_tip() -> None:
    """The largest stage's share is its mean latency divided by the sum of the mean latencies of all stages.

    Its tip names a setting that shortens the stage.
    """
    largest = largest_stage(result(whole_ms=400))
    assert largest is not None
    assert largest.stage == "llm_first_token"
    assert largest.share == pytest.approx(330 / 400)
    assert "hedging.budget" in largest.tip


def test_a_result_without_stages_has_no_largest_stage() -> None:
    """If the server reports no stages, the HTML page does not name a largest stage and has only two charts."""
    whole = result(latencies={"voice_to_voice": latency(400.0)})
    assert largest_stage(whole) is None
    page = html(whole)
    assert "The largest stage" not in page
    assert page.count("<svg") == 2


def test_the_page_says_how_the_system_conversed() -> None:
    """Interruptions without effect, false interruptions and failed responses are in the text, as is the background."""
    counts = Counts(turns=50, answered=50, interruptions=9, late_yields=2, false_interruptions=3, responses=60)
    noisy = result(counts=counts)
    scenario = noisy.scenario | {"background": "babble", "snr_db": 10.0, "loss": 0.02}
    page = " ".join(html(replace(noisy, scenario=scenario)).split())
    assert "Callers interrupted 9 replies, and 2 of them did not stop within 300 ms." in page
    assert "silenced 3 replies although their callers said nothing. 0 of 60 responses failed." in page
    assert "Background: babble at 10 dB. Lost messages: 2%." in page


def test_failing_calls_are_grouped_by_cause() -> None:
    """The table has a row for each cause with its calls and routes. Without failing calls there is no table."""
    group = FailingCalls("the audio had gaps", 3, {"local": 1, "us-asia": 2})
    page = html(replace(result(), failing=(group,)))
    row = page[page.index('id="failing"') :]
    assert row.index("the audio had gaps") < row.index("local: 1, us-asia: 2")
    assert 'id="failing"' not in html(result())


def test_every_stage_has_a_tip_with_an_existing_setting() -> None:
    """Every stage has a tip that begins with the key of an existing setting, except the tip for `delivery`."""
    assert TIPS.keys() == set(WATERFALL)
    document = Settings().model_dump()
    for stage, tip in TIPS.items():
        if stage == "delivery":
            continue
        section, *path = tip.replace(",", " ").replace(":", " ").split()[0].split(".")
        value = document[section]
        for key in path:
            value = value[key]


def test_an_invalid_run_says_so_at_the_top() -> None:
    """The page states the outcome and its causes before any measurement."""
    cause = "send lateness p99: measured 9 ms, must be at most 5 ms"
    page = html(result(RunOutcome.INVALID, causes=(cause,)))
    explanation = page.index(EXPLANATIONS[RunOutcome.INVALID])
    assert explanation < page.index(cause) < page.index("Calls and turns")
    assert EXPLANATIONS[RunOutcome.INVALID] not in html(result())


@pytest.mark.parametrize("outcome", RunOutcome)
def test_the_page_explains_the_outcome(outcome: RunOutcome) -> None:
    """The HTML report of a run with each outcome contains the sentence that explains this outcome."""
    assert EXPLANATIONS[outcome] in html(result(outcome))


def test_a_run_without_a_turn_has_a_report() -> None:
    """If nothing was measured, the page has the verdicts and no charts."""
    page = html(result(whole_ms=None, timeline=(), regions=()))
    assert "<svg" not in page
    assert "not measured" in page


def test_text_from_the_server_is_escaped() -> None:
    """An engine's name cannot inject HTML into the page."""
    page = html(result(engines={"llm": "<script>alert(1)</script>"}))
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
