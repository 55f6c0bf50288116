"""Who has the floor: the turn machine.

Two lifecycles run side by side. The caller is QUIET, SPEAKING, or SETTLING (a soft end was heard and we are deciding
whether the turn is over). The agent is IDLE, REPLYING, or OWING (a reply is under way that may not be interrupted,
and another is due behind it). `TABLE` says for every caller phase and every event what happens; what may be ignored
says so.

A revision numbers what was heard: it goes up whenever the caller goes on speaking after a soft end, and whenever a
turn is committed. Results that carry an old revision are forgotten, so nothing that was computed for half a sentence
can surface.

Time is in two clocks: `now` is monotonic seconds, sample indices are the caller's own audio at 16 kHz. A turn is
committed when either says that the required silence has passed: the audio clock decides when audio arrives faster
than real time, the wall clock when the caller's client stops sending.

Who answers: a turn that voice activity ended is answered if the client left `create_response` on. A turn that the
client commits itself is not; it asks for the reply when it wants one.

A draft is the reply to what was heard so far, begun at the soft end: every Draft(r) is followed by exactly one of
StartReply(draft=r), Forget(r) or Discard(r), and only the first lets anything of it out.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum

from rejoinder.core.audio import STT_RATE
from rejoinder.core.config import EndpointingSettings
from rejoinder.core.endpointing import DetectionMode, TurnDetection, wait_s
from rejoinder.core.speech import SoftEnd, SpeechResumed, SpeechStarted
from rejoinder.core.turn_commands import (
    AnnounceSpeech,
    CancelReply,
    Command,
    CommitSilence,
    CommitTurn,
    Discard,
    Draft,
    Forget,
    Hear,
    StartReply,
    WaitUntil,
    WatchSilence,
)


class Caller(Enum):
    QUIET = "quiet"
    SPEAKING = "speaking"
    SETTLING = "settling"


class Agent(Enum):
    IDLE = "idle"
    REPLYING = "replying"
    OWING = "owing"


@dataclass(frozen=True, slots=True)
class TurnRules:
    """What the client and the operator configured. An utterance longer than `max_utterance_s` is cut.

    `drafts`: a reply may be begun before its turn is taken.
    """

    detection: TurnDetection
    endpointing: EndpointingSettings
    max_utterance_s: float
    drafts: bool = False

    @property
    def replies(self) -> bool:
        """Whether a turn is answered without being asked for."""
        return self.detection.mode is not DetectionMode.NONE and self.detection.create_response

    @property
    def idle_s(self) -> float | None:
        """How long nobody may speak before the caller is asked again; None: for ever (only server_vad has it)."""
        idle_ms = self.detection.idle_timeout_ms
        return idle_ms / 1000 if idle_ms is not None and self.replies else None


@dataclass(frozen=True, slots=True)
class TurnState:
    """`start` and `speech_end` are samples; `wait` is the required silence in seconds, None while undecided."""

    caller: Caller = Caller.QUIET
    agent: Agent = Agent.IDLE
    revision: int = 0
    start: int = 0
    speech_end: int = 0
    wait: float | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """The turn model's probability for this revision; None when it did not answer in time.

    `processed`: voice activity is decided up to this sample.
    """

    revision: int
    probability: float | None
    processed: int


@dataclass(frozen=True, slots=True)
class AudioHeard:
    """Voice activity is decided up to sample `processed`."""

    processed: int


@dataclass(frozen=True, slots=True)
class WaitOver:
    """The timer of this revision fired, and no audio that came before waits for its voice activity decision."""

    revision: int


@dataclass(frozen=True, slots=True)
class CommitRequested:
    """The client ends the utterance at sample `end`; whether it is answered is the client's to say."""

    end: int


@dataclass(frozen=True, slots=True)
class ClearRequested:
    """The client drops the audio before sample `end` that is not committed yet."""

    end: int


@dataclass(frozen=True, slots=True)
class ReplyRequested:
    """The client asks for a reply. No response is open then: at most the last one's audio is still being heard."""


@dataclass(frozen=True, slots=True)
class ReplyEnded:
    """The reply was heard to its end, failed, or was cancelled by the client."""


@dataclass(frozen=True, slots=True)
class NobodySpoke:
    """The time set by WatchSilence is over; the caller's audio from `start` to `end` came meanwhile."""

    revision: int
    start: int
    end: int


TurnEvent = (
    SpeechStarted
    | SoftEnd
    | SpeechResumed
    | Verdict
    | AudioHeard
    | WaitOver
    | CommitRequested
    | ClearRequested
    | ReplyRequested
    | ReplyEnded
    | NobodySpoke
)


Step = tuple[TurnState, tuple[Command, ...]]


def step(state: TurnState, event: TurnEvent, rules: TurnRules, now: float) -> Step:
    """Advance by one event; total: every phase answers every event."""
    return TABLE[state.caller, type(event)](state, event, rules, now)


def _ignore(state: TurnState, event: TurnEvent, rules: TurnRules, now: float) -> Step:
    return state, ()


def _started(state: TurnState, event: SpeechStarted | SpeechResumed, rules: TurnRules, now: float) -> Step:
    state = replace(state, caller=Caller.SPEAKING, start=event.at, wait=None)
    announce = AnnounceSpeech(event.at)
    if state.agent is Agent.IDLE or not rules.detection.interrupt_response:
        return state, (announce,)
    return replace(state, agent=Agent.IDLE), (announce, CancelReply("turn_detected"))


def _soft_end(state: TurnState, event: SoftEnd, rules: TurnRules, now: float) -> Step:
    judged = rules.detection.mode is DetectionMode.SEMANTIC_VAD
    state = replace(state, caller=Caller.SETTLING, speech_end=event.speech_end, wait=None)
    begin: tuple[Command, ...] = (Hear(state.revision, state.start, event.at, judge=judged),)
    if rules.drafts and rules.replies and state.agent is Agent.IDLE:
        begin += (Draft(state.revision),)
    if judged:
        return state, begin
    state, waiting = _await_silence(state, rules, None, event.at, now)
    return state, begin + waiting


def _resumed(state: TurnState, event: SpeechResumed, rules: TurnRules, now: float) -> Step:
    old = state.revision
    return replace(state, caller=Caller.SPEAKING, revision=old + 1, wait=None), (Forget(old),)


def _verdict(state: TurnState, event: Verdict, rules: TurnRules, now: float) -> Step:
    if event.revision != state.revision or state.wait is not None:
        return state, ()
    return _await_silence(state, rules, event.probability, event.processed, now)


def _await_silence(state: TurnState, rules: TurnRules, probability: float | None, processed: int, now: float) -> Step:
    wait = wait_s(rules.detection, rules.endpointing, probability)
    state = replace(state, wait=wait)
    left = wait - (processed - state.speech_end) / STT_RATE
    if left <= 0:
        return _commit(state, rules)
    if math.isinf(left):
        return state, ()  # turn detection was switched off meanwhile: the client commits
    return state, (WaitUntil(state.revision, now + left),)


def _spoke_on(state: TurnState, event: AudioHeard, rules: TurnRules, now: float) -> Step:
    if event.processed - state.start < rules.max_utterance_s * STT_RATE:
        return state, ()
    turn = CommitTurn(state.revision, state.start, event.processed, event.processed, heard=False)
    return _committed(state, turn, rules, rules.replies)


def _heard(state: TurnState, event: AudioHeard, rules: TurnRules, now: float) -> Step:
    if state.wait is None or event.processed - state.speech_end < state.wait * STT_RATE:
        return state, ()
    return _commit(state, rules)


def _wait_over(state: TurnState, event: WaitOver, rules: TurnRules, now: float) -> Step:
    if event.revision != state.revision or state.wait is None or math.isinf(state.wait):
        return state, ()
    return _commit(state, rules)


def _commit(state: TurnState, rules: TurnRules) -> Step:
    end = state.speech_end + round((state.wait or 0.0) * STT_RATE)
    turn = CommitTurn(state.revision, state.start, end, state.speech_end, heard=True)
    return _committed(state, turn, rules, rules.replies)


def _cut_utterance(state: TurnState, event: CommitRequested, rules: TurnRules, now: float) -> Step:
    heard = state.caller is Caller.SETTLING
    speech_end = state.speech_end if heard else event.end
    turn = CommitTurn(state.revision, state.start, event.end, speech_end, heard)
    return _committed(state, turn, rules, reply=False)


def _committed(state: TurnState, turn: CommitTurn, rules: TurnRules, reply: bool) -> Step:
    state = replace(state, caller=Caller.QUIET, revision=state.revision + 1, start=turn.end, wait=None)
    drafted = turn.revision if rules.drafts and turn.heard else None
    if reply and state.agent is Agent.IDLE:
        return replace(state, agent=Agent.REPLYING), (turn, StartReply(drafted))
    unanswered: tuple[Command, ...] = (turn,) if drafted is None else (turn, Discard(drafted))
    return replace(state, agent=Agent.OWING) if reply else state, unanswered


def _clear(state: TurnState, event: ClearRequested, rules: TurnRules, now: float) -> Step:
    old = state.revision
    return replace(state, caller=Caller.QUIET, revision=old + 1, start=event.end, wait=None), (Forget(old),)


def _reply_requested(state: TurnState, event: ReplyRequested, rules: TurnRules, now: float) -> Step:
    return replace(state, agent=Agent.REPLYING), (StartReply(),)


def _reply_ended(state: TurnState, event: ReplyEnded, rules: TurnRules, now: float) -> Step:
    if state.agent is Agent.OWING:
        return replace(state, agent=Agent.REPLYING), (StartReply(),)
    state = replace(state, agent=Agent.IDLE)
    if state.caller is not Caller.QUIET or rules.idle_s is None:
        return state, ()
    return state, (WatchSilence(state.revision, now + rules.idle_s),)


def _nobody_spoke(state: TurnState, event: NobodySpoke, rules: TurnRules, now: float) -> Step:
    if event.revision != state.revision or state.agent is not Agent.IDLE or rules.idle_s is None:
        return state, ()
    state = replace(state, agent=Agent.REPLYING, revision=state.revision + 1, start=event.end)
    return state, (CommitSilence(event.start, event.end), StartReply())


Handler = Callable[..., Step]

TABLE: dict[tuple[Caller, type], Handler] = {
    (Caller.QUIET, SpeechStarted): _started,
    (Caller.QUIET, SoftEnd): _ignore,  # of speech that a clear or a cut already ended
    (Caller.QUIET, SpeechResumed): _started,  # it came just when the turn before was committed
    (Caller.QUIET, Verdict): _ignore,  # late, of a turn that is over
    (Caller.QUIET, AudioHeard): _ignore,
    (Caller.QUIET, WaitOver): _ignore,
    (Caller.QUIET, CommitRequested): _cut_utterance,
    (Caller.QUIET, ClearRequested): _clear,
    (Caller.QUIET, ReplyRequested): _reply_requested,
    (Caller.QUIET, ReplyEnded): _reply_ended,
    (Caller.QUIET, NobodySpoke): _nobody_spoke,
    (Caller.SPEAKING, SpeechStarted): _ignore,
    (Caller.SPEAKING, SoftEnd): _soft_end,
    (Caller.SPEAKING, SpeechResumed): _ignore,
    (Caller.SPEAKING, Verdict): _ignore,  # of a revision that resumed speech overtook
    (Caller.SPEAKING, AudioHeard): _spoke_on,
    (Caller.SPEAKING, WaitOver): _ignore,
    (Caller.SPEAKING, CommitRequested): _cut_utterance,
    (Caller.SPEAKING, ClearRequested): _clear,
    (Caller.SPEAKING, ReplyRequested): _reply_requested,
    (Caller.SPEAKING, ReplyEnded): _reply_ended,
    (Caller.SPEAKING, NobodySpoke): _ignore,
    (Caller.SETTLING, SpeechStarted): _resumed,
    (Caller.SETTLING, SoftEnd): _ignore,
    (Caller.SETTLING, SpeechResumed): _resumed,
    (Caller.SETTLING, Verdict): _verdict,
    (Caller.SETTLING, AudioHeard): _heard,
    (Caller.SETTLING, WaitOver): _wait_over,
    (Caller.SETTLING, CommitRequested): _cut_utterance,
    (Caller.SETTLING, ClearRequested): _clear,
    (Caller.SETTLING, ReplyRequested): _reply_requested,
    (Caller.SETTLING, ReplyEnded): _reply_ended,
    (Caller.SETTLING, NobodySpoke): _ignore,
}
