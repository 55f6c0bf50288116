"""A load run's result for machines and chats: JUnit XML for CI systems, and Markdown for pull requests."""

from __future__ import annotations

from xml.etree import ElementTree

from loadtest.judging.findings import findings
from loadtest.results.result import VOICE_TO_VOICE, RunOutcome, RunResult, Verdict
from loadtest.results.turn_record import WATERFALL


def junit(result: RunResult) -> str:
    """Return JUnit XML with one test case for each verdict, and one for the load generator's self-checks.

    FAIL is a failure, UNDECIDED is skipped with the number of turns that are missing, INVALID is an error. The verdicts
    on tables of the latency guide that do not decide the run are not included.
    """
    deciding = _deciding(result)
    causes = " ".join(f"{found.cause} {found.evidence}" for found in findings(result))
    suite = ElementTree.Element(
        "testsuite",
        name=f"rejoinder load, {result.scenario['tier']} tier",
        timestamp=result.started_at,
        tests=str(len(deciding) + 1),
        failures=str(sum(row.outcome is RunOutcome.FAIL for row in deciding)),
        errors=str(int(bool(result.causes))),
        skipped=str(sum(row.outcome is RunOutcome.UNDECIDED for row in deciding)),
        time=f"{result.held_s:g}",
    )
    checks = ElementTree.SubElement(suite, "testcase", classname="load", name="the load generator kept up")
    if result.causes:
        ElementTree.SubElement(checks, "error", message=" ".join(result.causes))
    for row in deciding:
        case = ElementTree.SubElement(suite, "testcase", classname="load", name=f"{row.name} {row.statistic}")
        if row.outcome is RunOutcome.FAIL:
            ElementTree.SubElement(case, "failure", message=_measured(row)).text = causes
        elif row.outcome is RunOutcome.UNDECIDED:
            ElementTree.SubElement(case, "skipped", message=f"{_measured(row)}; {row.needed} more turns are needed")
    ElementTree.indent(suite)
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def markdown(result: RunResult) -> str:
    """Return the outcome, what is wrong, the limits that decide, and the latencies, as Markdown."""
    lines = [f"## Load test: {result.outcome.value} ({result.scenario['tier']} tier)", ""]
    lines += [f"- Invalid load generator: {cause}" for cause in result.causes]
    lines += [f"{number}. **{found.cause}** {found.evidence}" for number, found in enumerate(findings(result), 1)]
    lines += ["", "| limit | statistic | allowed | measured | verdict |", "|---|---|---|---|---|"]
    for row in _deciding(result):
        allowed = f"{'at least' if row.statistic == 'share' else 'below'} {row.limit_ms:g} {_unit(row)}"
        observed = "not measured" if row.observed_ms is None else f"{row.observed_ms:g} {_unit(row)}"
        needed = f" ({row.needed} more turns)" if row.needed else ""
        lines.append(f"| {row.name} | {row.statistic} | {allowed} | {observed} | {row.outcome.value}{needed} |")
    lines += ["", "| ms | count | p50 | p95 | p99 |", "|---|---|---|---|---|"]
    for name in (VOICE_TO_VOICE, *WATERFALL):
        if at := result.latencies.get(name):
            lines.append(f"| {name} | {at.count} | {at.p50_ms:.0f} | {at.p95_ms:.0f} | {at.p99_ms:.0f} |")
    if result.emulated:
        lines += ["", f"The engines of {', '.join(sorted(result.emulated))} are emulated."]
    return "\n".join(lines) + "\n"


def _deciding(result: RunResult) -> list[Verdict]:
    """Return the verdicts that decide the outcome of the run. They come first in the result, and have unique names."""
    whole = next((number for number, row in enumerate(result.verdicts) if row.name.startswith("total,")), None)
    return list(result.verdicts[:whole])


def _unit(row: Verdict) -> str:
    return "%" if row.statistic == "share" else "ms"


def _measured(row: Verdict) -> str:
    observed = "nothing was measured" if row.observed_ms is None else f"{row.observed_ms:g} {_unit(row)} measured"
    return f"{observed}, {'at least' if row.statistic == 'share' else 'below'} {row.limit_ms:g} {_unit(row)} allowed"
