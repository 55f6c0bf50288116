"""Receivers of what a host measures and records. Import them from `actors.stages.ports`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol


class Metrics(Protocol):
    """Receiver of a conversation's measurements. Labels have a fixed set of values. Text of a caller is never a label.

    No method may block or raise.
    """

    def turn(
        self,
        voice_to_voice_s: float,
        stages_s: dict[str, float],
        *,
        raw_s: dict[str, float],
        engines: dict[str, str],
    ) -> None:
        """Record an answered turn.

        Args:
            voice_to_voice_s: Seconds from the caller's last speech to the first audio of the answer.
            stages_s: Each stage's share of the turn, in seconds. Time in which stages overlap counts for one of them.
            raw_s: Each stage's full duration, in seconds.
            engines: Name of the engine of each stage.
        """
        ...

    def session_opened(self) -> None:
        """Count a conversation that was admitted."""
        ...

    def session_closed(self, duration_s: float) -> None:
        """Record the end of a conversation that lasted `duration_s` seconds."""
        ...

    def refused(self, reason: str) -> None:
        """Count a call that was not admitted; `reason` is a value of `AdmissionRefusal`."""
        ...

    def hedge(self, outcome: Literal["sent", "won", "wasted", "budget_exhausted", "vetoed"]) -> None:
        """Count one step of hedging.

        A hedge was "sent". It had the first token ("won") or another attempt had it ("wasted"). No hedge was sent
        because the budget was used up ("budget_exhausted") or all queues were long ("vetoed").
        """
        ...

    def hedge_delay(self, delay_s: float) -> None:
        """Record the current hedge delay: seconds that a request waits for its first token before it is hedged."""
        ...

    def interim_transcript(self, outcome: Literal["heard", "failed"]) -> None:
        """Count an interim transcript that was received or has failed."""
        ...

    def draft(self, outcome: str) -> None:
        """Count a step of a speculative reply.

        `outcome` is "begun", "renewed" (begun again, because the final transcript has other words), "kept" (it answers
        the turn), "discarded", "discarded_ready" (counted in addition, if its first audio was ready), or "declined_"
        and a value of `DraftDeclined` (not begun).
        """
        ...

    def breaker(self, outcome: Literal["opened", "closed"]) -> None:
        """Count a language model replica that was taken out of use ("opened") or is used again ("closed")."""
        ...

    def cache(self, outcome: str) -> None:
        """Count an answer cache lookup or store.

        `outcome` of a lookup is "hit_exact", "hit_semantic", "miss", "late", "failed", "paused", or "refused_" and a
        reason (`CacheRefusal`). Of a store it is "stored" or "dropped".
        """
        ...

    def filler(self, after_s: float) -> None:
        """Record a filler that began `after_s` seconds after the caller's last speech."""
        ...

    def degradation(self, measure: str) -> None:
        """Count a degradation measure that is now in force in a session; a value of `DegradationMeasure`."""
        ...

    def interrupted(self, stop_s: float) -> None:
        """Record a barge-in; `stop_s` is the time from the speech's arrival until the reply stopped, in s."""
        ...

    def round_trip(self, seconds: float, transport: Literal["websocket", "webrtc"]) -> None:
        """Record a round trip between this host and a caller's device, in seconds."""
        ...

    def repeated_turn(self) -> None:
        """Count a turn of the caller that repeats the turn before it."""
        ...

    def hung_up(self, when: str, turns: int) -> None:
        """Record that the client ended a conversation after `turns` turns; `when` is a value of `HangUp`."""
        ...

    def dismissed_speech(self, reading: str) -> None:
        """Count speech during or just after a reply that did not become a turn.

        `reading` says why: "no_words", "backchannel", "echo" or "background" (values of `SpeechKind`).
        """
        ...

    def survival(self, outcome: str, count: int = 1) -> None:
        """Count `count` events of the session journal.

        `outcome` is "stored", "failed" or "dropped" because a journal is full (snapshots), "resumed", "not_found" or
        "unreadable" (sessions that a client wanted to resume), "superseded" (sessions that were resumed elsewhere), or
        "asked_to_move".
        """
        ...

    def error(self, fault: Literal["caller", "backend", "overload", "internal"], stage: str) -> None:
        """Count an error; `fault` says who or what caused it, and `stage` names the stage where it happened."""
        ...


@dataclass(frozen=True, slots=True)
class TurnTrace:
    """One turn for a trace. Times are in monotonic seconds.

    Attributes:
        traceparent: W3C trace context that the client sent with its call; "" for none.
        session_id: Id of the session.
        began_at: When the caller's last speech arrived.
        ended_at: When the first audio or text of the answer was sent; without an answer, when the reply ended.
        stages: Start and end of each stage, by its name.
        attributes: Facts about the turn, by name. They have words of the conversation only if the settings permit it.
        failed: True if the turn was not answered.
    """

    traceparent: str
    session_id: str
    began_at: float
    ended_at: float
    stages: Mapping[str, tuple[float, float]]
    attributes: Mapping[str, str | bool]
    failed: bool


class Tracer(Protocol):
    """Receiver of the times of turns, for traces."""

    def turn(self, trace: TurnTrace) -> None:
        """Record a turn that has ended. It may neither block nor raise."""
        ...


class Journal(Protocol):
    """Receiver of records about turns, for the operator. A record never contains audio."""

    def write(self, kind: str, fields: dict[str, object]) -> None:
        """Append a record of this kind ("heard", "replied"); `fields` must be JSON-serializable."""
        ...
