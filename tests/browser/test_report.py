"""Tests of the HTML report of a load test in a real browser, which opens it from a file."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from PIL import Image

from loadtest.judging.report import html
from loadtest.results.result import RunResult
from tests.loadtest.generator.test_generator import hold, known_server

pytestmark = [pytest.mark.browser, pytest.mark.models, pytest.mark.timeout(180)]

BROWSER = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=2000"]
SIZE = (1200, 4000)


@pytest.fixture(scope="module")
def found() -> RunResult:
    """Return the result of a short load test of a server with known response times."""
    with known_server(median_ms=450, sigma=0.1) as url:
        return hold(url, sessions=6, for_s=10, regions=("local", "us-europe"))


@pytest.fixture
def page(found: RunResult, tmp_path: Path) -> Path:
    path = tmp_path / "report.html"
    path.write_text(html(found), encoding="utf-8")
    return path


def browse(page: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [*BROWSER, *options, f"--user-data-dir={page.parent / 'profile'}", page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)


def test_the_report_is_complete(page: Path, found: RunResult) -> None:
    """The report has the verdict, three charts and every row of its tables, and loads nothing from the network."""
    dom = browse(page, "--dump-dom").stdout
    assert f"{found.outcome.value}</span>" in dom
    assert dom.count("<svg") == 3
    for table, rows in {"verdicts": len(found.verdicts), "checks": len(found.checks), "regions": 2}.items():
        body = dom.split(f'<table id="{table}">')[1].split("</table>")[0]
        assert body.count("<tr") == rows + 1
    assert "emulated known times" in dom
    assert "The largest stage is <b>llm first token</b>" in dom
    assert "hedging.budget" in dom
    assert "http://" not in dom.replace("http://www.w3.org", "").replace("http://purl.org", "").replace(
        "http://creativecommons.org", ""
    )
    assert "https://" not in dom.replace("https://matplotlib.org", "")


def test_the_report_draws(page: Path) -> None:
    """A screenshot of the page has more than 100 colours, among them the black of a curve, so the charts are drawn."""
    shot = page.with_name("report.png")
    browse(page, f"--screenshot={shot}", f"--window-size={SIZE[0]},{SIZE[1]}")
    image = Image.open(shot).convert("RGB")
    assert image.size == SIZE
    colours = {colour for _, colour in image.getcolors(maxcolors=2**24) or []}
    assert len(colours) > 100
    assert (0, 0, 0) in colours  # the curve of voice-to-voice latency is black
