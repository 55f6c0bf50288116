"""Turn-taking bench: what the agent did in each event of the corpus, and the figures that follow from it.

A turn with pauses counts as interrupted if any reply is audible before the caller's last word has ended. The yield
latency is from the first frame of the caller's speech over a reply to the reply's last audible sample. Selectivity is
the share of backchannels, coughs, side speech and noises over a reply after which the reply goes on.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from loadtest.results.intervals import Percentile, Share, percentile, wilson
from loadtest.turn_corpus.event import CorpusEvent, Expected, Split, order_of
from rejoinder.core.measuring.waterfall import Stage

LONGEST_PAUSE_MS = 1000
"""Longest inserted pause, in milliseconds, that counts in the verdict: the agent must wait in it. Turns with longer
pauses appear only in the tables.
"""

INTERRUPTS_BAR, YIELD_BAR_S, SELECTIVITY_BAR = 0.05, 0.3, 0.9
"""Bars of the verdict: the largest share of interrupted turns (0 to 1), the largest 95th percentile of the yield
latency in seconds, and the smallest selectivity (0 to 1).
"""

QUICK_EVENTS = 60


@dataclass(frozen=True, slots=True)
class EventOutcome:
    """What the agent did in one event of the turn-taking corpus.

    Attributes:
        event: The event's id.
        kind: The event's kind.
        voice: The event's voice; "" for a noise.
        split: The part of the corpus to which the event belongs: a value of `Split`.
        expected: The right behavior: a value of `Expected`.
        longest_pause_ms: The longest pause that was inserted into the event, in milliseconds; 0 if there is none.
        sentences: Number of sentences in the event's text. An answer between two of them is not wrong.
        answered_s: Seconds from the end of the caller's speech to the first audible sample of a reply. Negative if the
            agent interrupted. None if no reply became audible, or if the event is over a reply.
        went_on: For an event over a reply: True if the reply was still or again audible after the event. None for
            other events.
        yield_s: For an event over a reply that stopped: seconds from the first frame of speech to the reply's last
            audible sample. None otherwise.
        commits: Number of times that the server ended the turn before the end of the caller's speech.
        heard: The server's transcripts of the caller's speech, in order.
        stages_ms: Stage times of the answer in milliseconds, by stage (`rejoinder.core.measuring.waterfall.Stage`). {}
            if there was no answer, or if the event is not a turn of the caller.
        fault: Why the event could not be played, for example because the reply to talk over did not come; "" if it was
            played.
    """

    event: str
    kind: str
    voice: str
    split: str
    expected: str
    longest_pause_ms: int = 0
    sentences: int = 1
    answered_s: float | None = None
    went_on: bool | None = None
    yield_s: float | None = None
    commits: int = 0
    heard: tuple[str, ...] = ()
    stages_ms: Mapping[str, float] = field(default_factory=dict)
    fault: str = ""

    @property
    def interrupted(self) -> bool:
        """True if a reply was audible before the caller had finished."""
        return self.answered_s is not None and self.answered_s < 0

    @property
    def counts(self) -> bool:
        """True if the event was played, so that it counts in the figures."""
        return not self.fault


def outcome_of(event: CorpusEvent, **found: Any) -> EventOutcome:
    """Return the outcome of an event. `found` has the measured fields of `EventOutcome`, such as `answered_s`."""
    text = " ".join(part.text for part in event.parts)
    return EventOutcome(
        event.id,
        kind=event.kind,
        voice=event.voice,
        split=event.split.value,
        expected=event.expected.value,
        longest_pause_ms=max(event.pauses_ms, default=0),
        **{"sentences": sentences(text)} | found,
    )


def sentences(text: str) -> int:
    """Return the number of sentences of a text, at least 1. Full stops, question and exclamation marks end them."""
    ends = sum(word.rstrip("\"')").endswith((".", "?", "!")) for word in text.split()[:-1])
    return ends + 1


def selected(events: Iterable[CorpusEvent], split: Split, *, quick: bool = False) -> list[CorpusEvent]:
    """Return the events of one part of the corpus, in a fixed shuffled order.

    The events that a stopped run has played are thus a fair sample.

    Args:
        events: All events.
        split: The part of the corpus.
        quick: True to return only about QUICK_EVENTS events, the same share of every kind.
    """
    kinds: dict[tuple[str, str], list[CorpusEvent]] = defaultdict(list)
    for event in events:
        if event.split is split:
            kinds[event.kind, event.scene.value].append(event)
    total = sum(map(len, kinds.values()))
    share = min(1.0, QUICK_EVENTS / max(1, total)) if quick else 1.0
    chosen = [
        event
        for group in kinds.values()
        for event in sorted(group, key=lambda event: order_of(event.id))[: max(1, round(len(group) * share))]
    ]
    return sorted(chosen, key=lambda event: order_of(event.id))


@dataclass(frozen=True, slots=True)
class TurnTaking:
    """Figures of a set of outcomes. Shares and percentiles have a 95% confidence interval.

    Attributes:
        interrupts: Share of turns in which a reply was audible before the caller had finished, among the turns of one
            sentence with inserted pauses of at most LONGEST_PAUSE_MS.
        interrupts_all: The same share among all turns of one sentence, with longer pauses or none.
        answered: Share of the turns without such an interruption that got an answer.
        latency_p50_s: Median time from the end of the caller's speech to the first audible sample of the answer, in
            seconds, over the turns without an interruption.
        latency_p95_s: 95th percentile of the same time.
        yields: Share of the caller's interruptions that stopped the reply.
        yield_p50_s: Median time from an interruption's first frame of speech to the reply's last audible sample, in
            seconds.
        yield_p95_s: 95th percentile of the same time.
        selectivity: Share of backchannels, coughs, side speech, background and noises over a reply after which the
            reply went on.
        background_answered: Share of sounds not meant for a silent agent that the agent answered.
        unplayed: Number of events that could not be played.
    """

    interrupts: Share
    interrupts_all: Share
    answered: Share
    latency_p50_s: Percentile
    latency_p95_s: Percentile
    yields: Share
    yield_p50_s: Percentile
    yield_p95_s: Percentile
    selectivity: Share
    background_answered: Share
    unplayed: int

    @property
    def holds(self) -> bool:
        """True if the run passes: every interruption stopped the reply, and three figures meet their bars.

        They are `interrupts` (INTERRUPTS_BAR), `yield_p95_s` (YIELD_BAR_S) and `selectivity` (SELECTIVITY_BAR). Without
        any event a figure does not meet its bar.
        """
        return (
            self.interrupts.share <= INTERRUPTS_BAR
            and self.yields.count == self.yields.total > 0
            and self.yield_p95_s.value <= YIELD_BAR_S
            and self.selectivity.share >= SELECTIVITY_BAR
        )


def figures(outcomes: Sequence[EventOutcome]) -> TurnTaking:
    """Return the figures of these outcomes. Events that could not be played count only in `unplayed`."""
    played = [outcome for outcome in outcomes if outcome.counts]
    asked = [outcome for outcome in played if outcome.expected == Expected.ANSWER.value]
    single = [outcome for outcome in asked if outcome.sentences == 1]
    pausing = [outcome for outcome in single if 0 < outcome.longest_pause_ms <= LONGEST_PAUSE_MS]
    whole = [outcome for outcome in asked if not outcome.interrupted]
    latencies = [outcome.answered_s for outcome in whole if outcome.answered_s is not None]
    stopping = [outcome for outcome in played if outcome.expected == Expected.YIELD.value]
    yields_s = [outcome.yield_s for outcome in stopping if outcome.yield_s is not None]
    talked_over = [outcome for outcome in played if outcome.expected == Expected.GO_ON.value]
    ignored = [outcome for outcome in played if outcome.expected == Expected.IGNORE.value]
    return TurnTaking(
        interrupts=_share(pausing, lambda outcome: outcome.interrupted),
        interrupts_all=_share(single, lambda outcome: outcome.interrupted),
        answered=_share(whole, lambda outcome: outcome.answered_s is not None),
        latency_p50_s=percentile(latencies, 50),
        latency_p95_s=percentile(latencies, 95),
        yields=_share(stopping, lambda outcome: outcome.yield_s is not None),
        yield_p50_s=percentile(yields_s, 50),
        yield_p95_s=percentile(yields_s, 95),
        selectivity=_share(talked_over, lambda outcome: bool(outcome.went_on)),
        background_answered=_share(ignored, lambda outcome: outcome.answered_s is not None),
        unplayed=len(outcomes) - len(played),
    )


def _share(outcomes: Sequence[EventOutcome], has: Callable[[EventOutcome], bool]) -> Share:
    return wilson(sum(map(has, outcomes)), len(outcomes))


def grouped(outcomes: Sequence[EventOutcome], key: Callable[[EventOutcome], str]) -> dict[str, TurnTaking]:
    """Group the outcomes by `key`. Return the figures of each group by its key, sorted by key."""
    groups: dict[str, list[EventOutcome]] = defaultdict(list)
    for outcome in outcomes:
        groups[key(outcome)].append(outcome)
    return {name: figures(groups[name]) for name in sorted(groups)}


def pause_group(outcome: EventOutcome) -> str:
    """Return the name of a turn's row in the table of pauses: its longest inserted pause, or that it has none.

    Return "" for an event that is not a turn of the caller.
    """
    if outcome.expected != Expected.ANSWER.value:
        return ""
    return f"{outcome.longest_pause_ms:4d} ms" if outcome.longest_pause_ms else "no inserted pause"


@dataclass(frozen=True, slots=True)
class StageTimes:
    """Stage times of answered turns that were not interrupted.

    Attributes:
        turns: Number of turns.
        stages_ms: Median and 95th percentile of each stage in milliseconds, in pipeline order, then of their sum. The
            medians do not add up to the median of the sum.
    """

    turns: int
    stages_ms: Mapping[str, tuple[float, float]]


def stage_times(outcomes: Sequence[EventOutcome], *, pausing: bool) -> StageTimes:
    """Return the stage times of the turns with inserted pauses (`pausing`), or of those without any."""
    found = [
        outcome.stages_ms
        for outcome in outcomes
        if outcome.stages_ms and not outcome.interrupted and (outcome.longest_pause_ms > 0) is pausing
    ]
    columns = {stage.value: [times.get(stage.value, 0.0) for times in found] for stage in Stage}
    columns["all stages"] = [sum(times.values()) for times in found]
    if not found:
        return StageTimes(0, {})
    both = {name: np.percentile(column, (50, 95)) for name, column in columns.items()}
    return StageTimes(len(found), {name: (float(low), float(high)) for name, (low, high) in both.items()})


@dataclass(frozen=True, slots=True)
class PublishedPanel:
    """Published figures of another system, measured on another corpus; None if a figure was not published.

    Attributes:
        name: The system.
        interrupts: Share of turns in which it spoke before the caller had finished, 0 to 1.
        yield_s: Time until it stopped after an interruption, in seconds.
        ignores_backchannels: Share of backchannels after which it went on speaking, 0 to 1.
    """

    name: str
    interrupts: float | None
    yield_s: float | None
    ignores_backchannels: float | None


PUBLISHED = (
    PublishedPanel("gpt-realtime-1.5", interrupts=0.14, yield_s=0.42, ignores_backchannels=0.02),
    PublishedPanel("xAI realtime", interrupts=0.84, yield_s=None, ignores_backchannels=0.93),
    PublishedPanel("LiveKit cascade", interrupts=0.64, yield_s=None, ignores_backchannels=None),
)
"""Published figures. They come from other corpora than this one, so they show an order of magnitude only."""


def report(outcomes: Sequence[EventOutcome], left_out: dict[str, int]) -> dict[str, Any]:
    """Return the object that `--json` writes: bars, total figures, figures by kind, voice and pause, and outcomes.

    Args:
        outcomes: The outcome of each event that was tried.
        left_out: Number of events whose audio this machine cannot make, by the missing voice.
    """
    total = figures(outcomes)
    return {
        "bars": {"interrupts": INTERRUPTS_BAR, "yield_p95_s": YIELD_BAR_S, "selectivity": SELECTIVITY_BAR},
        "holds": total.holds,
        "figures": asdict(total),
        "by_kind": {name: asdict(found) for name, found in grouped(outcomes, lambda each: each.kind).items()},
        "by_voice": {name: asdict(found) for name, found in grouped(outcomes, lambda each: each.voice).items()},
        "by_pause": {name: asdict(found) for name, found in grouped(outcomes, pause_group).items()},
        "stages": {
            "no inserted pause": asdict(stage_times(outcomes, pausing=False)),
            "inserted pauses": asdict(stage_times(outcomes, pausing=True)),
        },
        "left_out": left_out,
        "outcomes": [asdict(outcome) for outcome in outcomes],
    }
