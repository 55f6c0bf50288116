"""Turn-taking bench: what the agent did in each event of the corpus, and the figures that follow from it.

A turn with pauses counts as interrupted if any reply is audible before the caller's last word has ended. The yield
latency is from the first frame of the caller's speech over a reply to the reply's last audible sample. Selectivity is
the share of backchannels, coughs, side speech and noises over a reply after which the reply goes on.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from loadtest.results.intervals import Percentile, Share, percentile, wilson
from loadtest.turn_corpus.event import CorpusEvent, Expected, Split, order_of

LONGEST_PAUSE_MS = 1000
"""Pauses up to this length inside phrases and numbers must be waited for. Longer ones are in the table only."""

INTERRUPTS_BAR, YIELD_BAR_S, SELECTIVITY_BAR = 0.05, 0.3, 0.9
"""Bars: most interrupted turns, the 95th percentile of the yield latency, and the least selectivity."""

QUICK_EVENTS = 60


@dataclass(frozen=True, slots=True)
class EventOutcome:
    """What happened in one event. Times are in seconds.

    Attributes:
        event: The event's id.
        kind: Its kind.
        voice: Its voice; "" for a noise.
        split: Its split.
        expected: The right behavior.
        longest_pause_ms: Its longest inserted pause; 0 if there is none.
        sentences: Number of sentences in its text. Between two of them an answer is not wrong.
        answered_s: From the end of the caller's speech to the first audible sample of a reply. Negative if the agent
            interrupted. None if no reply became audible, or if the event is over a reply.
        went_on: Over a reply: True if the reply was audible again, or still, after the event. None elsewhere.
        yield_s: Over a reply that ended: from the first frame of speech to the reply's last audible sample.
        commits: Ends of turns that the server decided, before the end of the caller's speech.
        heard: The transcripts, in order.
        fault: Why the event could not be played, for example because the reply before it did not come; "" if it was.
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
    fault: str = ""

    @property
    def interrupted(self) -> bool:
        """True if a reply was audible before the caller had finished."""
        return self.answered_s is not None and self.answered_s < 0

    @property
    def counts(self) -> bool:
        """True if the event was played."""
        return not self.fault


def outcome_of(event: CorpusEvent, **found: Any) -> EventOutcome:
    """Return the outcome of an event. `found` are the fields that were measured."""
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
    """Return the events of a split, in an order without a pattern, so that a part of a run is a fair sample.

    Args:
        events: All events.
        split: The split.
        quick: True for about QUICK_EVENTS of them: the same share of every kind.
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
    """Figures of a set of outcomes.

    Attributes:
        interrupts: Turns in which a reply was audible before the caller had finished, of the turns with pauses of at
            most LONGEST_PAUSE_MS inside one sentence.
        interrupts_all: The same of all turns of one sentence, longer pauses and turns without a pause included.
        answered: Turns that got an answer after their end, of those that were not interrupted.
        latency_p50_s: Median of the response latency of these, and its 95th percentile in `latency_p95_s`.
        latency_p95_s: See `latency_p50_s`.
        yields: Interruptions of the caller that ended the reply.
        yield_p50_s: Median of the yield latency, and its 95th percentile in `yield_p95_s`.
        yield_p95_s: See `yield_p50_s`.
        selectivity: Backchannels, coughs, side speech and noises over a reply after which it went on.
        background_answered: Sounds that are not meant for the agent, while it is silent, that it answered.
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
        """True if all three bars are met. A figure without any event does not meet its bar."""
        return (
            self.interrupts.share <= INTERRUPTS_BAR
            and self.yields.count == self.yields.total > 0
            and self.yield_p95_s.value <= YIELD_BAR_S
            and self.selectivity.share >= SELECTIVITY_BAR
        )


def figures(outcomes: Sequence[EventOutcome]) -> TurnTaking:
    """Return the figures of outcomes. Events that could not be played count for none of them."""
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
    """Return the figures of each group of outcomes with the same `key`, by the key, in its order."""
    groups: dict[str, list[EventOutcome]] = defaultdict(list)
    for outcome in outcomes:
        groups[key(outcome)].append(outcome)
    return {name: figures(groups[name]) for name in sorted(groups)}


def pause_group(outcome: EventOutcome) -> str:
    """Return the row of a turn in the table of pauses: its longest pause, or the reason why it has none."""
    if outcome.expected != Expected.ANSWER.value:
        return ""
    return f"{outcome.longest_pause_ms:4d} ms" if outcome.longest_pause_ms else "no inserted pause"


@dataclass(frozen=True, slots=True)
class PublishedPanel:
    """Published figures of another system, from its own corpus. None: not published. Shares are 0..1."""

    name: str
    interrupts: float | None
    yield_s: float | None
    ignores_backchannels: float | None


PUBLISHED = (
    PublishedPanel("gpt-realtime-1.5", interrupts=0.14, yield_s=0.42, ignores_backchannels=0.02),
    PublishedPanel("xAI realtime", interrupts=0.84, yield_s=None, ignores_backchannels=0.93),
    PublishedPanel("LiveKit cascade", interrupts=0.64, yield_s=None, ignores_backchannels=None),
)
"""Published panels. Their corpora differ from this one, so the figures show an order of magnitude only."""


def report(outcomes: Sequence[EventOutcome], left_out: dict[str, int]) -> dict[str, Any]:
    """Return the object that `--json` writes: bars, figures in all, by kind and by voice, and every outcome.

    Args:
        outcomes: What happened.
        left_out: Number of events that this machine cannot make, by what is missing.
    """
    total = figures(outcomes)
    return {
        "bars": {"interrupts": INTERRUPTS_BAR, "yield_p95_s": YIELD_BAR_S, "selectivity": SELECTIVITY_BAR},
        "holds": total.holds,
        "figures": asdict(total),
        "by_kind": {name: asdict(found) for name, found in grouped(outcomes, lambda each: each.kind).items()},
        "by_voice": {name: asdict(found) for name, found in grouped(outcomes, lambda each: each.voice).items()},
        "by_pause": {name: asdict(found) for name, found in grouped(outcomes, pause_group).items()},
        "left_out": left_out,
        "outcomes": [asdict(outcome) for outcome in outcomes],
    }
