"""The whole comparison: the knee (largest passing number of sessions) of every row, the ratios, and their files."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from benchmarks.frameworks.contestants import CONTESTANTS, Contestant, python_of
from benchmarks.frameworks.knee import KneeSearch, largest
from benchmarks.frameworks.process import cores
from benchmarks.frameworks.streams import received_by_host, streams
from benchmarks.frameworks.timing import Probe, ProbeOutcome
from benchmarks.frameworks.trial import Trial, find_edges
from rejoinder.core.audio.pcm import WIRE_RATE
from rejoinder.core.errors import BackendError
from rejoinder.core.settings.settings import ModelStoreSettings
from rejoinder.store import open_store

CACHE = Path.home() / ".cache" / "rejoinder" / "peers"
WANTED = {"livekit": 4.0, "pipecat": 6.0}
"""Required ratio of our knee without a network to the best knee of each competing framework."""

# For each framework, the row of Rejoinder with which it is compared. Pipecat and its opponent both run Smart Turn.
# LiveKit and its opponent both run without a turn detector.
OPPONENT = {"livekit": "ours-headless", "pipecat": "ours-smart-turn"}


@dataclass(frozen=True, slots=True)
class FrameworkRow:
    """Result of one contender.

    Attributes:
        name: Name of the row.
        title: Label in the table.
        sessions: The knee: the largest number of sessions that passes. None if the harness could not measure it.
        bar: Required knee. 0 for a competing framework.
        p50_ms: Median of the added latency in milliseconds, in the last passing run at the knee.
        p95_ms: 95th percentile of the added latency in milliseconds, in the same run.
        cpu: Share of the core that the contender used in the same run, 0 to 1.
        memory_mb: Memory in MB per additional session. None if all runs had the same number of sessions.
        took_s: Length of the search in seconds.
        probes: Every run of the search, each as a mapping with the attributes of `timing.Probe`.
    """

    name: str
    title: str
    sessions: int | None
    bar: int
    p50_ms: float | None
    p95_ms: float | None
    cpu: float | None
    memory_mb: float | None
    took_s: float
    probes: tuple[dict[str, Any], ...]

    @property
    def verdict(self) -> str:
        """PASS or FAIL against `bar`, "" for a competing framework, INVALID without a knee."""
        if self.sessions is None:
            return "INVALID"
        if not self.bar:
            return ""
        return "PASS" if self.sessions >= self.bar else "FAIL"


def summarize(contestant: Contestant, knee: int | None, probes: Sequence[Probe], took_s: float) -> FrameworkRow:
    """Return the row of a finished search. `knee` is its result, `probes` are its runs, `took_s` its seconds."""
    passed = [probe for probe in probes if probe.outcome is ProbeOutcome.PASS]
    best = next((probe for probe in reversed(passed) if probe.sessions == knee), None)
    return FrameworkRow(
        contestant.name,
        title=contestant.title,
        sessions=knee,
        bar=contestant.bar,
        p50_ms=best.p50_ms if best else None,
        p95_ms=best.p95_ms if best else None,
        cpu=best.cpu if best else None,
        memory_mb=marginal_mb(passed),
        took_s=took_s,
        probes=tuple(asdict(probe) | {"outcome": probe.outcome.value} for probe in probes),
    )


def marginal_mb(probes: Sequence[Probe]) -> float | None:
    """Return the memory in MB per additional session, from the runs with the fewest and with the most sessions.

    None without runs, or if all runs had the same number of sessions.
    """
    if not probes:
        return None
    small, large = min(probes, key=lambda p: p.sessions), max(probes, key=lambda p: p.sessions)
    if small.sessions == large.sessions:
        return None
    return (large.memory_mb - small.memory_mb) / (large.sessions - small.sessions)


@dataclass(frozen=True, slots=True)
class Ratio:
    """Our knee divided by the knee of a competing framework's best configuration.

    Attributes:
        ours: Name of our row.
        rival: Name of the framework's row with the largest knee.
        ratio: The quotient of the two knees.
        wanted: Required quotient.
    """

    ours: str
    rival: str
    ratio: float
    wanted: float

    @property
    def verdict(self) -> str:
        """PASS or FAIL against the required ratio."""
        return "PASS" if self.ratio >= self.wanted else "FAIL"


def ratios(rows: Sequence[FrameworkRow]) -> list[Ratio]:
    """Return for each competing framework the ratio of our knee to its best knee.

    A framework is left out if either knee is unknown or 0.
    """
    by_name = {row.name: row for row in rows}
    computed = []
    for form, wanted in WANTED.items():
        rivals = [by_name[c.name] for c in CONTESTANTS if c.form == form and c.name in by_name]
        ours = by_name.get(OPPONENT[form])
        measured = [row for row in rivals if row.sessions]
        if ours is None or not ours.sessions or not measured:
            continue
        best = max(measured, key=lambda row: row.sessions or 0)
        computed.append(Ratio(ours.name, best.name, ours.sessions / (best.sessions or 1), wanted))
    return computed


def load_rows(file: Path) -> dict[str, FrameworkRow]:
    """Return the rows stored in `file`, by name. Empty if the file does not exist."""
    if not file.is_file():
        return {}
    stored = json.loads(file.read_text(encoding="utf-8"))["rows"]
    return {
        row["name"]: FrameworkRow(**row | {"probes": tuple(row["probes"])}) for row in map(_without_verdict, stored)
    }


def _without_verdict(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key != "verdict"}


def save_rows(file: Path, rows: Sequence[FrameworkRow]) -> None:
    """Write the rows and the ratios between them as JSON.

    The keys are the attributes of `FrameworkRow` and `Ratio`, plus `verdict`.
    """
    document = {
        "rows": [asdict(row) | {"verdict": row.verdict} for row in rows],
        "ratios": [asdict(ratio) | {"verdict": ratio.verdict} for ratio in ratios(rows)],
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


async def compare(
    contestants: Sequence[Contestant], finished: dict[str, FrameworkRow], keep: Path, report: Callable[[str], None]
) -> list[FrameworkRow]:
    """Measure the contenders that have no result yet, and return all results. SIGTERM raises KeyboardInterrupt.

    Args:
        contestants: Contenders to measure.
        finished: Results by name of the contender. The new results are added to it.
        keep: JSON file to which all results are written after each contender.
        report: Called with a line of text after each run.

    Returns:
        All results, in the order of CONTESTANTS.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    for contestant in contestants:
        if contestant.name in finished and finished[contestant.name].sessions is not None:
            report(f"{contestant.title}: finished in an earlier run")
            continue
        finished[contestant.name] = await measure(contestant, report, probe_file(keep, contestant))
        save_rows(keep, in_order(finished))
    return in_order(finished)


def in_order(rows: Mapping[str, FrameworkRow]) -> list[FrameworkRow]:
    """Return the rows, given by name, in the order of CONTESTANTS, which is the order of the printed table."""
    return [rows[contestant.name] for contestant in CONTESTANTS if contestant.name in rows]


async def measure(contestant: Contestant, report: Callable[[str], None], file: Path) -> FrameworkRow:
    """Search the knee of one contender, and return its row.

    `report` is called with a line of text after each run. Every run is written to `file`, so that the next call
    continues an interrupted search. The file is deleted at the end.
    """
    began = time.monotonic()
    trial = prepare(contestant)

    async def run(sessions: int) -> Probe:
        try:
            probe = await trial.run(sessions)
        except BackendError as error:
            if sessions == 1:
                raise  # a contender that cannot start one session is an error, not a result
            probe = failed_probe(sessions, str(error))
        report(describe(contestant, probe))
        write_probes(file, [*search.probes, probe])
        return probe

    search = KneeSearch(run, contestant.most, earlier=read_probes(file))
    knee = await largest(search, contestant.first)
    delete_probes(file)
    return summarize(contestant, knee, search.probes, time.monotonic() - began)


def probe_file(keep: Path, contestant: Contestant) -> Path:
    """Return the path of the JSON file with the runs of a contender's unfinished search, next to `keep`."""
    return keep.with_suffix(f".{contestant.name}.json")


def write_probes(file: Path, probes: Sequence[Probe]) -> None:
    """Write the runs that a search has made so far to `file`, as JSON."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps([asdict(probe) | {"outcome": probe.outcome.value} for probe in probes]), "utf-8")


def delete_probes(file: Path) -> None:
    """Delete the file with the runs of a search. Do nothing if it does not exist."""
    file.unlink(missing_ok=True)


def read_probes(file: Path) -> list[Probe]:
    """Return the stored runs of an interrupted search. Empty if the file does not exist."""
    if not file.is_file():
        return []
    stored = json.loads(file.read_text(encoding="utf-8"))
    return [Probe(**probe | {"outcome": ProbeOutcome(probe["outcome"])}) for probe in stored]


def failed_probe(sessions: int, cause: str) -> Probe:
    """Return the FAIL result of a run in which the contender could not start. `cause` says why."""
    return Probe(
        sessions,
        outcome=ProbeOutcome.FAIL,
        cause=cause,
        turns=0,
        missed=0,
        stray=0,
        p50_ms=None,
        p95_ms=None,
        p99_ms=None,
        late_p99_ms=0.0,
        foreign_share=0.0,
        cpu=0.0,
        memory_mb=0.0,
    )


def prepare(contestant: Contestant) -> Trial:
    """Return a trial of a contender, ready to run.

    Install its environment if needed, make its input streams, and find the end of the turn in each.
    """
    python = python_of(contestant, CACHE)
    clips = open_store(ModelStoreSettings()).path("human-clips")
    sent = streams(clips, WIRE_RATE) if contestant.networked else streams(clips)
    received = [received_by_host(stream) for stream in sent] if contestant.networked else sent
    return Trial(contestant, python=python, streams=sent, edges=find_edges(contestant, python, received), cores=cores())


def describe(contestant: Contestant, probe: Probe) -> str:
    """Return one line of text with the outcome, latencies, turns and resource use of a run."""
    latency = "" if probe.p95_ms is None else f"p50 {probe.p50_ms:.0f} p95 {probe.p95_ms:.0f} ms, "
    rest = f"{probe.turns} turns, {probe.missed} missed, {probe.cpu:.0%} of the core, {probe.memory_mb:.0f} MB"
    return f"{contestant.name}: {probe.sessions} sessions {probe.outcome.value} {probe.cause} ({latency}{rest})"
