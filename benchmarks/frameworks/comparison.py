"""The whole comparison: each row's knee, kept in a file as soon as it is known, and the ratios between them."""

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
from benchmarks.frameworks.streams import streams, through_the_wire
from benchmarks.frameworks.timing import Probe, ProbeOutcome
from benchmarks.frameworks.trial import Trial, find_edges
from rejoinder.core.audio.pcm import WIRE_RATE
from rejoinder.core.errors import BackendError
from rejoinder.core.settings.settings import ModelStoreSettings
from rejoinder.store import open_store

CACHE = Path.home() / ".cache" / "rejoinder" / "peers"
WANTED = {"livekit": 4.0, "pipecat": 6.0}
"""Our headless knee against each rival's best form (DESIGN section 5)."""

# Against a rival without a turn model ours runs without one; against one with Smart Turn, with it.
OPPONENT = {"livekit": "ours-headless", "pipecat": "ours-smart-turn"}


@dataclass(frozen=True, slots=True)
class FrameworkRow:
    """One contender. `sessions`: the knee, None if the harness could not tell; `memory_mb`: marginal, a session.

    `p50_ms`, `p95_ms`, `cpu` are of the last passing run at the knee.
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
        if self.sessions is None:
            return "INVALID"
        if not self.bar:
            return ""
        return "PASS" if self.sessions >= self.bar else "FAIL"


def summarize(contestant: Contestant, knee: int | None, probes: Sequence[Probe], took_s: float) -> FrameworkRow:
    """What a finished search is worth."""
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
    """Memory that one more session took, between the smallest and the largest run; None without two sizes."""
    if not probes:
        return None
    small, large = min(probes, key=lambda p: p.sessions), max(probes, key=lambda p: p.sessions)
    if small.sessions == large.sessions:
        return None
    return (large.memory_mb - small.memory_mb) / (large.sessions - small.sessions)


@dataclass(frozen=True, slots=True)
class Ratio:
    """Ours over a rival's best form; `wanted` is what DESIGN asks."""

    ours: str
    rival: str
    ratio: float
    wanted: float

    @property
    def verdict(self) -> str:
        return "PASS" if self.ratio >= self.wanted else "FAIL"


def ratios(rows: Sequence[FrameworkRow]) -> list[Ratio]:
    """Those whose both sides are known."""
    by_name = {row.name: row for row in rows}
    found = []
    for form, wanted in WANTED.items():
        rivals = [by_name[c.name] for c in CONTESTANTS if c.form == form and c.name in by_name]
        ours = by_name.get(OPPONENT[form])
        known = [row for row in rivals if row.sessions]
        if ours is None or not ours.sessions or not known:
            continue
        best = max(known, key=lambda row: row.sessions or 0)
        found.append(Ratio(ours.name, best.name, ours.sessions / (best.sessions or 1), wanted))
    return found


def load_rows(file: Path) -> dict[str, FrameworkRow]:
    """Rows that earlier runs finished."""
    if not file.is_file():
        return {}
    stored = json.loads(file.read_text(encoding="utf-8"))["rows"]
    return {
        row["name"]: FrameworkRow(**row | {"probes": tuple(row["probes"])}) for row in map(_without_verdict, stored)
    }


def _without_verdict(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key != "verdict"}


def save_rows(file: Path, rows: Sequence[FrameworkRow]) -> None:
    """Keys: those of `FrameworkRow` and `Ratio`, each with its verdict."""
    document = {
        "rows": [asdict(row) | {"verdict": row.verdict} for row in rows],
        "ratios": [asdict(ratio) | {"verdict": ratio.verdict} for ratio in ratios(rows)],
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


async def compare(
    contestants: Sequence[Contestant], finished: dict[str, FrameworkRow], keep: Path, tell: Callable[[str], None]
) -> list[FrameworkRow]:
    """Measure the rows that are not finished yet; each is kept as soon as it is known.

    A terminated comparison takes its contenders with it.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    for contestant in contestants:
        if contestant.name in finished and finished[contestant.name].sessions is not None:
            tell(f"{contestant.title}: kept from an earlier run")
            continue
        finished[contestant.name] = await measure(contestant, tell, diary_of(keep, contestant))
        save_rows(keep, in_order(finished))
    return in_order(finished)


def in_order(rows: Mapping[str, FrameworkRow]) -> list[FrameworkRow]:
    return [rows[contestant.name] for contestant in CONTESTANTS if contestant.name in rows]


async def measure(contestant: Contestant, tell: Callable[[str], None], diary: Path) -> FrameworkRow:
    """One contender's knee. Its runs are kept in `diary` until the row is known, so that a search goes on where it was
    broken off.
    """
    began = time.monotonic()
    trial = prepare(contestant)

    async def run(sessions: int) -> Probe:
        try:
            probe = await trial.run(sessions)
        except BackendError as fault:
            if sessions == 1:
                raise  # it does not work at all
            probe = not_held(sessions, str(fault))
        tell(describe(contestant, probe))
        write_diary(diary, [*search.probes, probe])
        return probe

    search = KneeSearch(run, contestant.most, earlier=read_diary(diary))
    knee = await largest(search, contestant.first)
    forget_diary(diary)
    return summarize(contestant, knee, search.probes, time.monotonic() - began)


def diary_of(keep: Path, contestant: Contestant) -> Path:
    """Where a contender's runs are kept beside the finished rows."""
    return keep.with_suffix(f".{contestant.name}.json")


def write_diary(diary: Path, probes: Sequence[Probe]) -> None:
    diary.parent.mkdir(parents=True, exist_ok=True)
    diary.write_text(json.dumps([asdict(probe) | {"outcome": probe.outcome.value} for probe in probes]), "utf-8")


def forget_diary(diary: Path) -> None:
    diary.unlink(missing_ok=True)


def read_diary(diary: Path) -> list[Probe]:
    """The runs of a search that was broken off; none if none was."""
    if not diary.is_file():
        return []
    stored = json.loads(diary.read_text(encoding="utf-8"))
    return [Probe(**probe | {"outcome": ProbeOutcome(probe["outcome"])}) for probe in stored]


def not_held(sessions: int, cause: str) -> Probe:
    """A run that did not come to be: the contender does not hold so many."""
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
    """Its environment, its streams, and its own ends of speech in them."""
    python = python_of(contestant, CACHE)
    clips = open_store(ModelStoreSettings()).path("human-clips")
    sent = streams(clips, WIRE_RATE) if contestant.networked else streams(clips)
    heard = [through_the_wire(stream) for stream in sent] if contestant.networked else sent
    return Trial(contestant, python=python, streams=sent, edges=find_edges(contestant, python, heard), cores=cores())


def describe(contestant: Contestant, probe: Probe) -> str:
    """One line a run."""
    latency = "" if probe.p95_ms is None else f"p50 {probe.p50_ms:.0f} p95 {probe.p95_ms:.0f} ms, "
    rest = f"{probe.turns} turns, {probe.missed} missed, {probe.cpu:.0%} of the core, {probe.memory_mb:.0f} MB"
    return f"{contestant.name}: {probe.sessions} sessions {probe.outcome.value} {probe.cause} ({latency}{rest})"
