"""Tests of what a plan costs, of the sensitivity of the cost, and of the page to sign."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from loadtest.capacity.inversion import CapacityTarget
from loadtest.capacity.plan import Knee, LowLoad, Plan, PlannedComponent, PlanResources
from loadtest.planning.cost import SensitivityRow, cost, spare_sensitivity
from loadtest.planning.page import PlanPage, plan_page
from rejoinder.core.capacity.budgets import Tier
from rejoinder.core.capacity.failure_domains import spread
from rejoinder.core.capacity.sizing import Basis, NodeType, ReplicaUnit, SizedComponent, Traffic
from tests.loadtest.capacity.test_plan import CHECKS, SOLVED, check

NODE = NodeType("c-16 <EU>", cores=16, memory_mb=64_000, per_hour=0.5)
RESOURCES = PlanResources({}, (NODE,), (NODE,))


def plan(**changes: object) -> Plan:
    """Return a plan of 24 hosts on machines of 0.50 an hour, of which one may die."""
    hosts = SizedComponent(ReplicaUnit("host", 100, 1.0, 100), 24, 0)
    group, (sized,) = spread(NODE, [hosts], 1)
    made = Plan(
        CapacityTarget(2000, Tier.GOOD, 1200.0),
        checks=tuple(CHECKS),
        knee=Knee(30, "the slots of tts", Basis.EXTRAPOLATED, 3.0),
        inverted=SOLVED,
        components={"host": PlannedComponent(sized, Traffic(0, 0, 0, 0), Basis.EXTRAPOLATED)},
        edge=Traffic(1, 1, 1, 1),
        refused=(0.001, 0.002),
        basis=Basis.EXTRAPOLATED,
        intervals_ms=None,
        per_host=100,
        groups=(group,),
    )
    return replace(made, **changes)  # type: ignore[arg-type]  # fields of Plan


def page(made: Plan) -> str:
    p95 = [SensitivityRow("p95 at most 600 ms", False, None, None, why="a single caller has 700 ms")]
    shown = PlanPage(
        {"llm": "vLLM <b>"}, ["A risk & more."], spare=list(spare_sensitivity(made, RESOURCES)), p95=p95, currency="EUR"
    )
    return plan_page(made, shown)


def test_the_cost_is_that_of_all_nodes() -> None:
    """Three nodes of 0.50 are 1.50 an hour and 1,095 a month of 730 hours; two at the lowest load are 1.00."""
    made = plan(low=LowLoad(100, {"host": 4}, (2,)))
    found = cost(made)
    assert found is not None
    assert (made.groups[0].nodes, found.per_hour, found.low_per_hour, found.per_month) == (3, 1.5, 1.0, 1095.0)


def test_without_prices_there_is_no_cost() -> None:
    """A machine type without a price gives no cost, never one of 0."""
    made = plan()
    assert cost(replace(made, groups=(replace(made.groups[0], type=replace(NODE, per_hour=None)),))) is None


def test_more_spare_nodes_cost_more() -> None:
    """Two, three, four and five nodes for no, one, two and three nodes that may die. The plan's row is marked."""
    rows = list(spare_sensitivity(plan(), RESOURCES))
    assert [(row.nodes, row.per_hour) for row in rows] == [(2, 1.0), (3, 1.5), (4, 2.0), (5, 2.5)]
    assert [row.chosen for row in rows] == [False, True, False, False]


class Outline(HTMLParser):
    """Collects the tags of a page and checks that they are closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta",):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_self_contained_and_accessible() -> None:
    """The page needs no other file and no script. Tables have captions and header cells with a scope, and scroll."""
    text = page(plan())
    outline = Outline()
    outline.feed(text)
    assert outline.open == []
    names = [tag for tag, _ in outline.tags]
    assert not {"script", "link", "img"} & set(names)
    assert not re.search(r"https?://|url\(", text)
    assert names.count("table") == names.count("caption") == 6
    assert all("scope" in attributes for tag, attributes in outline.tags if tag == "th")
    assert ("html", {"lang": "en"}) in outline.tags
    assert names.count("h1") == names.count("main") == 1
    regions = [attributes for tag, attributes in outline.tags if attributes.get("role") == "region"]
    assert len(regions) == 6
    assert all(attributes["tabindex"] == "0" and attributes["aria-label"] for attributes in regions)


def test_the_page_says_what_to_buy_and_what_is_wrong() -> None:
    """The page has machines, cost, sensitivity, risks and the warning of an extrapolated plan, all escaped."""
    text = page(plan())
    for part in (
        "Buy 3 x c-16 &lt;EU&gt;",
        "1.50 EUR an hour and 1,095 EUR a month",
        "This plan is extrapolated",
        "extrapolated, no interval",
        "1 node(s) may die (this plan)",
        "not possible: a single caller has 700 ms",
        "A risk &amp; more.",
        "+67%",
    ):
        assert part in text
    within = page(plan(basis=Basis.PREDICTED, intervals_ms={"p50_ms": 5.0, "p95_ms": 50.0, "p99_ms": 60.0}))
    assert "This plan is extrapolated" not in within
    assert "1000 ± 50 ms" in within


def test_the_page_warns_of_a_model_that_does_not_fit() -> None:
    """A model whose p95 is 30% below a measured one stands in a notice at the top, with the number of sessions."""
    misfit = plan(checks=(*CHECKS[:2], check(30, p95_error=-0.3)))
    assert "does not fit the calibration</b> at 30 sessions" in page(misfit)
    assert "does not fit the calibration" not in page(plan())


@pytest.mark.parametrize("low", [None, LowLoad(100, {"host": 4}, (2,))])
def test_the_lowest_load_is_shown_only_for_a_day(low: LowLoad | None) -> None:
    """A plan from a day's calls has a column of what must run at the lowest load."""
    text = page(plan(low=low))
    assert ("at the lowest load" in text) is (low is not None)
