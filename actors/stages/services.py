"""Objects that all conversations of a host share: ports, settings, language model client, metrics and limits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from actors.stages.answer_cache import AnswerCacheClient
from actors.stages.hedged_llm import Hedger
from actors.stages.ports import Journal, Metrics, Stages, Tracer
from actors.stages.tool_servers import NO_SERVERS, ToolServers
from actors.stages.turn_detector_queue import TurnDetectorQueue
from rejoinder.core.access.frame_guard import shared_rate
from rejoinder.core.access.stored_bytes import StoredBytes
from rejoinder.core.access.token_bucket import TokenBucket
from rejoinder.core.reply.draft_budget import DraftBudget
from rejoinder.core.reply.first_segment import FirstSegmentSizer
from rejoinder.core.reply.held_clips import HeldClips, StageLatencyEstimator
from rejoinder.core.resilience.stage_admission import StageAdmission
from rejoinder.core.settings.settings import Settings
from rejoinder.core.turns.endpointing import EndpointRule
from rejoinder.store.end_of_turn_table import load_table


@dataclass(frozen=True, slots=True)
class Services:
    """Shared services of one host.

    Attributes:
        stages: The ports to the engines.
        settings: The configuration of the application.
        hedger: Client of the language model, with hedged requests.
        phrases: The prepared clips (held clips): apology, fillers, greeting, openings and set phrases.
        metrics: Receiver of measurements.
        journal: Receives the records of turns.
        clock: Returns the monotonic time, in seconds.
        draft_budget: Limits speculative replies.
        answer_cache: Client of the answer cache.
        endpoint_rule: Settings and table of the silence that ends a turn.
        stored: Bytes that all clients of the host make it keep, and their maximum.
        message_rate: Rate of large messages that all connections of the host share (`FrameGuard`).
        stage_admission: Admission by the load of the stages; None if the stages report no load.
        tool_servers: The servers of tools that this system calls.
        tracer: Receives the times of turns; None if no traces are made.
        turn_detector_queue: Limits the concurrent requests to the turn detector.
        latency_estimator: Predicts when a reply's first audio will be ready, for fillers.
        first_segment_sizer: Chooses the length of a reply's first segment.
    """

    stages: Stages
    settings: Settings
    hedger: Hedger
    phrases: HeldClips
    metrics: Metrics
    journal: Journal
    clock: Callable[[], float]
    draft_budget: DraftBudget
    answer_cache: AnswerCacheClient
    endpoint_rule: EndpointRule
    stored: StoredBytes
    message_rate: TokenBucket
    stage_admission: StageAdmission | None = None
    tool_servers: ToolServers = NO_SERVERS
    tracer: Tracer | None = None
    turn_detector_queue: TurnDetectorQueue = field(default_factory=TurnDetectorQueue)
    latency_estimator: StageLatencyEstimator = field(default_factory=StageLatencyEstimator)
    first_segment_sizer: FirstSegmentSizer = field(default_factory=FirstSegmentSizer)

    @classmethod
    def over(
        cls,
        stages: Stages,
        settings: Settings,
        phrases: HeldClips,
        metrics: Metrics,
        *,
        journal: Journal,
        clock: Callable[[], float],
        stage_admission: StageAdmission | None = None,
        stored: StoredBytes | None = None,
        message_rate: TokenBucket | None = None,
        tool_servers: ToolServers = NO_SERVERS,
        tracer: Tracer | None = None,
    ) -> Services:
        """Return the services of a host whose conversations use `stages`. The other services are created here.

        Args:
            stages: The ports to the engines.
            settings: The configuration of the application.
            phrases: The prepared clips (held clips).
            metrics: Receiver of measurements.
            journal: Receives the records of turns.
            clock: Returns the monotonic time, in seconds.
            stage_admission: Admission by the load of the stages; None if the stages report no load.
            stored: Bytes that all clients of the host make it keep; None for a new count.
            message_rate: Rate of large messages of all connections; None for that of the settings.
            tool_servers: The servers of tools that this system calls.
            tracer: Receives the times of turns; None if no traces are made.
        """
        hedger = Hedger(stages.llm, settings=settings, metrics=metrics, clock=clock, backup=stages.llm_backup)
        draft_budget = DraftBudget(settings.speculation)
        answer_cache = AnswerCacheClient(stages.answers, settings.answer_cache, metrics, clock)
        return cls(
            stages,
            settings=settings,
            hedger=hedger,
            phrases=phrases,
            metrics=metrics,
            journal=journal,
            clock=clock,
            draft_budget=draft_budget,
            answer_cache=answer_cache,
            endpoint_rule=EndpointRule(settings.endpointing, load_table(settings.endpointing.table)),
            stored=stored or StoredBytes(settings.limits.host_bytes),
            message_rate=message_rate or shared_rate(settings.limits),
            stage_admission=stage_admission,
            tool_servers=tool_servers,
            tracer=tracer,
        )
