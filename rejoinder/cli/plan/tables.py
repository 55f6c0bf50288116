"""Tables and notes of a plan. Each row states the basis of its figures: measured, predicted, published and so on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from rich.table import Table

from cluster.environment import FILES_PER_CONNECTION, SPARE_FILES
from loadtest.capacity.calibration import Calibration
from loadtest.capacity.footprint import HEADROOM, HOST_CORES
from loadtest.capacity.network_fit import STAGES, batching, session_range
from loadtest.capacity.plan import Plan
from loadtest.planning.cost import MONTH_HOURS, Cost, SensitivityRow
from loadtest.planning.day import DayLoad
from loadtest.planning.page import MOST_ERROR, latency_rows
from rejoinder.core.capacity.failure_domains import HAPROXY_CORES, NO_TRAFFIC, node_traffic
from rejoinder.core.capacity.gpu_throughput import MOST_BATCH, TOKENS_PER_AUDIO_S, CardEstimate
from rejoinder.core.capacity.providers import Choice
from rejoinder.core.capacity.sizing import REACH, Basis
from rejoinder.core.settings.settings import Settings, parse_settings


def tables(made: Plan, chosen: Mapping[str, Choice]) -> Iterator[Table]:
    """Yield five tables in the order in which they are printed.

    They are: the calibration's measured and predicted latencies, the target with its predictions, the components, the
    nodes, and the engines of the guide's providers.

    Args:
        made: The plan.
        chosen: The guide's fastest provider by stage.
    """
    yield _checks(made)
    yield _target(made)
    yield _components(made)
    yield _nodes(made)
    yield _engines(chosen)


def _checks(made: Plan) -> Table:
    table = Table("sessions", title="Calibration: measured / predicted (error)")
    names = ("p50_ms", "p95_ms", "p99_ms", "turns_per_s")
    for name in names:
        table.add_column(name.replace("_ms", " ms").replace("turns_per_s", "turns/s"), justify="right")
    for check in made.checks:
        cells = (
            f"{check.measured[name]:.4g} / {check.predicted[name]:.4g} ({check.errors[name]:+.1%})" for name in names
        )
        table.add_row(str(check.sessions), *cells)
    return table


def _target(made: Plan) -> Table:
    table = Table("", "value", "basis", title="The target")
    target, found, knee = made.target, made.inverted.prediction, made.knee
    erlang_b = f"predicted (Erlang B, {REACH} hosts a caller)"
    table.add_row("sessions offered, on average", f"{target.sessions}", Basis.GIVEN.value)
    table.add_row("sessions admitted", f"{made.inverted.admitted}", Basis.PREDICTED.value)
    table.add_row("refused with all hosts", f"{made.refused[0]:.3%}", erlang_b)
    table.add_row(
        f"refused while {target.spare} node(s) are missing",
        f"{made.refused[1]:.3%}",
        erlang_b,
    )
    for name, limit, value, basis in latency_rows(made):
        table.add_row(f"voice to voice {name}", f"{value} (limit: {limit})", basis)
    table.add_row("turns a second", f"{made.turns_per_s:.1f}", made.basis.value)
    table.add_row("second LLM requests a turn", f"{found.hedged:.2%}", made.basis.value)
    if knee:
        table.add_row(
            "knee of the calibrated deployment", f"{knee.sessions} sessions, by {knee.bound}", knee.basis.value
        )
        table.add_row("its turns a second, simulated", f"{knee.turns_per_s:.2f}", knee.basis.value)
    return table


def _components(made: Plan) -> Table:
    table = Table("component", title=f"Components; {made.target.spare} node(s) may die")
    for heading in ("replicas", "slots", "busy", "cores", "GPUs", "GB", "Mbps", "kpps"):
        table.add_column(heading, justify="right")
    table.add_column("basis")
    for name, component in made.components.items():
        sized = component.sized
        table.add_row(
            name,
            f"{sized.needed} + {sized.spare}",
            str(sized.unit.slots),
            "-" if component.busy is None else f"{component.busy:.0%}",
            f"{sized.cores:.1f}",
            f"{sized.gpus:g}",
            f"{sized.memory_mb / 1000:.1f}",
            f"{component.traffic.mbps:.1f}",
            f"{component.traffic.pps / 1000:.1f}",
            component.basis.value,
        )
    return table


def _nodes(made: Plan) -> Table:
    """Return a table with one row for each node group.

    The network traffic is that of one node's interface while the spare nodes are missing, without what stays on the
    node. `open files` is what HAProxy then needs on each node where callers enter.
    """
    table = Table("node group", "machine", "nodes", title="Node groups")
    for heading in ("Mbps in", "Mbps out", "kpps in", "kpps out", "HAProxy cores", "open files"):
        table.add_column(f"{heading} a node", justify="right")
    table.add_column("replicas (most on a node)")
    for group in made.groups:
        working = max(1, group.nodes - group.spare)
        enters = not group.type.gpus
        near = [made.components[name].traffic for name in group.replicas if name != "host"]
        far = [part.traffic for name, part in made.components.items() if name not in group.replicas]
        stage_nodes = sum(near, NO_TRAFFIC).times(1 / working)
        traffic = node_traffic(made.edge, near, far, working) if enters else stage_nodes
        sessions = made.inverted.admitted / working if enters else 0.0
        table.add_row(
            "cpu" if enters else "gpu",
            f"{group.type.cores:g} cores, {group.type.memory_mb / 1000:g} GB, {group.type.gpus:g} GPUs",
            f"{group.nodes} ({group.spare} spare)",
            *(f"{value / 1000:.1f}" for value in (traffic.in_kbps, traffic.out_kbps, traffic.in_pps, traffic.out_pps)),
            f"{sessions * HAPROXY_CORES * HEADROOM:.1f}",
            f"{SPARE_FILES + FILES_PER_CONNECTION * sessions:.0f}" if enters else "-",
            ", ".join(f"{name} {n} ({group.most_per_node.get(name, n)})" for name, n in group.replicas.items()),
        )
    return table


def _engines(chosen: Mapping[str, Choice]) -> Table:
    title = "Engines of the guide's provider tables"
    table = Table(
        "stage", "fastest", "usable", "latency", "limit (3.2)", "holds", "faster, not usable", "basis", title=title
    )
    for stage, choice in chosen.items():
        provider = choice.provider
        others = ", ".join(f"{row.name} {row.typical_ms:g} ms" for row in choice.passed_over)
        figures = (f"{provider.typical_ms:g} ms", f"< {choice.limit_ms:g} ms", "yes" if choice.holds else "no")
        usable = "yes" if provider.settings else "no: Rejoinder has no engine for it"
        table.add_row(stage, provider.name, usable, *figures, others or "-", provider.source)
    return table


def gpus(cards: Sequence[CardEstimate], needed_per_s: float, billions: float, *, bits: int) -> Table:
    """Return a table of how many GPUs the language model needs, by published figures.

    Args:
        cards: Estimate of each card of the guide.
        needed_per_s: Tokens a second of the plan.
        billions: Parameters of the model in billions.
        bits: Bits per weight.
    """
    title = (
        f"{billions:g} billion parameters in {bits} bits at {needed_per_s:.0f} tokens a second: "
        "published, not measured here"
    )
    table = Table("GPU", "GB", title=title)
    for heading in ("tokens/s of one request", f"tokens/s of {MOST_BATCH} requests", "GPUs", "guide 4.2"):
        table.add_column(heading, justify="right")
    for estimate in cards:
        card = estimate.card
        if estimate.single is None or estimate.batch is None:
            cells = ["-", "-", "does not fit"]
        else:
            cells = [f"{estimate.single:.0f}", f"{estimate.batch:.0f}", str(estimate.cards)]
        table.add_row(card.name, str(card.vram_gb), *cells, card.pace)
    return table


def gpu_notes(cards: Sequence[CardEstimate], made: Plan, calibration: Calibration) -> Iterator[str]:
    """Yield what published figures say about the plan's GPUs for the language model. Nothing without estimates.

    An emulated engine needs no GPU, so its replicas may be fewer than the GPUs that a real model needs.
    """
    if not cards:
        return
    yield (
        f"GPU figures are published, not measured here: vLLM with Llama 3.1 8B on one A100 and one H100, by bandwidth "
        f"for other cards and models, at most {MOST_BATCH} requests at once, {TOKENS_PER_AUDIO_S:g} tokens a second of "
        "speech."
    )
    sized = made.components["llm"].sized
    kinds = {group.type.gpu.upper() for group in made.groups if "llm" in group.replicas}
    for estimate in cards:
        if estimate.card.name not in kinds or not calibration.engines["llm"].startswith("emulated"):
            continue
        planned = sized.needed * sized.unit.gpus
        if estimate.cards is None:
            yield f"The language model does not fit into one {estimate.card.name}."
        elif estimate.cards > planned:
            yield (
                f"The plan has {planned:g} {estimate.card.name} for the emulated language model, and published figures "
                f"say {estimate.cards}. Calibrate the real model on that card before you buy."
            )


def costs(total: Cost | None, rows: Sequence[SensitivityRow], currency: str) -> Table:
    """Return a table of what a plan costs, and what other choices would cost.

    Args:
        total: Price of the plan. None if it is unknown.
        rows: Other choices, with their price.
        currency: Code of the currency.
    """
    table = Table("choice", "machines", f"{currency} an hour", f"{currency} a month", "change", title="Cost")
    for row in rows:
        if row.nodes is None or row.per_hour is None or total is None:
            table.add_row(row.change, row.machines or "-", "-", "-", row.why)
            continue
        change = "this plan" if row.chosen else f"{row.per_hour / total.per_hour - 1:+.0%}"
        month = f"{row.per_hour * MONTH_HOURS:,.0f}"
        table.add_row(row.change, row.machines, f"{row.per_hour:.2f}", month, change)
    if total and total.low_per_hour < total.per_hour:
        table.add_row("at the lowest load of the day", "", f"{total.low_per_hour:.2f}", "", "")
    return table


def day(load: DayLoad, made: Plan) -> Table:
    """Return a table of the highest and lowest load of a day, with the replicas that run then at least."""
    table = Table("load of the day", "conversations", "at", "nodes", "replicas", title="Minimum and maximum")
    low = made.low
    if low is None:
        return table
    most = {name: component.sized.replicas for name, component in made.components.items()}
    nodes = [group.nodes for group in made.groups]
    for name, sessions, count, replicas in (
        ("highest", load.most, nodes, most),
        ("lowest", load.least, low.nodes, low.replicas),
    ):
        text = ", ".join(f"{stage} {number}" for stage, number in replicas.items())
        table.add_row(name, str(sessions), load.at(sessions), " + ".join(map(str, count)), text)
    return table


def _batching(calibration: Calibration) -> Iterator[str]:
    """Yield a phrase for each stage: how many ms longer a request takes for each further concurrent request.

    If the calibration does not show this, the phrase says so.
    """
    for stage in STAGES:
        found = batching(calibration, stage)
        if found is None:
            yield f"{stage} was never busy enough to show it"
        elif found.believed:
            yield f"{stage} takes {found.slope_s * 1000:.0f} ms longer for each concurrent request"
        else:
            yield f"{stage} shows no growth beyond noise"


def _beyond_the_queues(settings: Settings) -> Iterator[str]:
    """Yield a note for each feature that was on during calibration, but that the queue model does not include.

    The features are speculative replies, fillers and degradation.
    """
    if settings.speculation.enabled:
        yield (
            "Speculative replies (drafts) were on. The discarded ones are in the measured load, but the model starts "
            "replies at the end of the turn, so its latencies are upper bounds."
        )
    if settings.conversation.filler_after_ms:
        yield (
            "Fillers were on. A reply waits for the filler before it, which the model does not include. Calibrate with "
            "conversation.filler_after_ms: 0 if late turns matter."
        )
    if settings.degradation.enabled:
        yield (
            "Degradation was on. A session with late turns gets cheaper replies, so beyond the calibrated levels the "
            "system is faster than predicted and says less. Calibrate with degradation.enabled: false to see its "
            "queues."
        )


def notes(calibration: Calibration, made: Plan, *, published: bool) -> Iterator[str]:
    """Yield the assumptions that the tables depend on, one text for each.

    Args:
        calibration: The plan's calibration.
        made: The plan.
        published: Whether published latencies replaced calibrated ones.
    """
    least, most = session_range(calibration.levels)
    levels = ", ".join(str(level.sessions) for level in calibration.levels)
    yield (
        f"Calibrated at {levels} sessions on {calibration.machine or 'an unnamed machine'}; beyond {least} to {most} "
        "sessions, or beyond the slots' measured use, a figure is extrapolated."
    )
    if made.intervals_ms:
        yield (
            "± combines the largest error at a calibrated level with the simulation's sampling error. "
            "It does not cover other configurations."
        )
    else:
        yield "The latencies have no interval: nothing bounds the model's error outside the calibrated range."
    for check in made.checks:
        if abs(check.errors["p95_ms"]) > MOST_ERROR:
            yield (
                f"The model does not fit the calibration: at {check.sessions} sessions, it predicts a p95 of "
                f"{check.predicted['p95_ms']:.0f} ms, and {check.measured['p95_ms']:.0f} ms were measured. Calibrate "
                "longer on an idle machine before you rely on the latencies."
            )
    if made.low:
        yield (
            "Replicas scale with the day. Between the lowest and the highest load, the autoscaler runs no spare "
            "replicas, so turns are late after a node dies, until replacements have started. Plan the highest load "
            "with --sessions to have the spare replicas all day."
        )
    for name, component in made.components.items():
        if component.source:
            yield f"The size of {name} is a {component.source}."
    yield f"Batching: {'; '.join(_batching(calibration))}."
    if calibration.emulated:
        stages = ", ".join(stage for stage, engine in calibration.engines.items() if engine.startswith("emulated"))
        yield f"Emulated engines ({stages}): the plan is for engines with those latency curves, not for real models."
    yield from _beyond_the_queues(parse_settings(calibration.settings))
    if published:
        yield "Published latencies are fixed times with an assumed concurrency. Measure before you buy."
    yield (
        f"Cores are the used ones times {HEADROOM:g}. A host is filled to {HOST_CORES:g} of its core. "
        "Network: TCP over IPv4, no TLS, no pure ACKs. HAProxy and Ray's own processes take what was measured on one "
        "machine (docs/results/density.md), scaled by sessions and replicas."
    )
