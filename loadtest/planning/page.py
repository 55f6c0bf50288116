"""A plan as one page of HTML: what to buy, why, the risks, and how the cost depends on p95 and on spare nodes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from loadtest.capacity.plan import Plan
from loadtest.judging.page import render_page
from loadtest.planning.cost import MONTH_HOURS, SensitivityRow, cost, machines

MOST_ERROR = 0.25
"""Relative error of the p95 at a calibrated level above which the model does not fit the calibration."""

_TEMPLATE = Path(__file__).with_name("plan.html.jinja")


@dataclass(frozen=True, slots=True)
class PlanPage:
    """What a page shows besides the plan.

    Attributes:
        engines: Name of each stage's engine, by stage.
        risks: What may be wrong with the plan, one text for each risk.
        spare: Cost of other numbers of nodes that may die.
        p95: Cost of other limits of the 95th percentile.
        currency: Code of the currency of the prices.
        price_source: Where the prices come from.
    """

    engines: Mapping[str, str]
    risks: Sequence[str]
    spare: Sequence[SensitivityRow]
    p95: Sequence[SensitivityRow]
    currency: str = ""
    price_source: str = ""


def plan_page(made: Plan, page: PlanPage) -> str:
    """Return a page of HTML that needs no network and no script."""
    return render_page(
        _TEMPLATE,
        made=made,
        summary=summary(made, page.currency),
        cost=cost(made),
        currency=page.currency,
        price_source=page.price_source,
        month_hours=MONTH_HOURS,
        misfits=[check.sessions for check in made.checks if abs(check.errors["p95_ms"]) > MOST_ERROR],
        latencies=list(latency_rows(made)),
        engines=page.engines,
        sensitivities=[("Nodes that may die", page.spare), ("Limit of the 95th percentile", page.p95)],
        risks=page.risks,
    )


def summary(made: Plan, currency: str) -> str:
    """Return what to buy for what, in a few sentences."""
    target = made.target
    text = (
        f"Buy {machines(made.groups)}. By the model, they carry {target.sessions} conversations at the same time, with "
        f"a median voice-to-voice latency below {target.p50_ms:g} ms and 95% of the turns within {target.p95_ms:g} ms, "
        f"while {target.spare} node(s) of each group are missing."
    )
    found = cost(made)
    if found is None:
        return text
    money = f" This costs {found.per_hour:.2f} {currency} an hour and {found.per_month:,.0f} {currency} a month"
    if made.low and found.low_per_hour < found.per_hour:
        money += (
            f" if all nodes run all day, and {found.low_per_hour:.2f} {currency} an hour at the lowest load, "
            f"{made.low.sessions} conversations"
        )
    return f"{text}{money}."


def latency_rows(made: Plan) -> Iterator[tuple[str, str, str, str]]:
    """Yield name, limit, prediction and basis of each percentile of voice-to-voice latency, as text."""
    found, target = made.inverted.prediction, made.target
    basis = made.basis.value if made.intervals_ms else f"{made.basis.value}, no interval"
    for name, estimate, limit in (
        ("p50", found.p50_ms, f"< {target.p50_ms:g} ms ({target.tier.value} tier)"),
        ("p95", found.p95_ms, f"<= {target.p95_ms:g} ms"),
        ("p99", found.p99_ms, "-"),
    ):
        width = f" ± {made.intervals_ms[f'{name}_ms']:.0f}" if made.intervals_ms else ""
        yield name, limit, f"{estimate.value:.0f}{width} ms", basis
