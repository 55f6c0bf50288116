"""Who has the floor: the turn machine.

Two lifecycles run side by side. The caller is QUIET, SPEAKING, or SETTLING (a soft end was heard and we are deciding
whether the turn is over). The agent is IDLE, REPLYING, PAUSED (speech over a reply silenced it; `interruptions` decides
what becomes of it), or OWING (a reply is under way that may not be interrupted, and another is due behind it). `TABLE`
says for every caller phase and every event what happens; what may be ignored says so.

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
from dataclasses import replace

from rejoinder.core.audio.pcm import STT_RATE, VAD_WINDOW
from rejoinder.core.turns import interruptions
from rejoinder.core.turns.commands import (
    CancelRevision,
    Command,
    CommitIdleTurn,
    CommitTurn,
    DiscardDraft,
    StartDraft,
    StartIdleTimer,
    StartReply,
    Transcribe,
    WaitUntil,
)
from rejoinder.core.turns.endpointing import DetectionMode, wait_s
from rejoinder.core.turns.events import (
    AudioProcessed,
    ClearRequested,
    CommitRequested,
    IdleTimeout,
    InterimReady,
    ReplyEnded,
    ReplyRequested,
    SilenceElapsed,
    TranscriptReady,
    TurnEvent,
    VerdictReady,
)
from rejoinder.core.turns.speech_detector import RESUME_WINDOWS, SoftEnd, SpeechResumed, SpeechStarted
from rejoinder.core.turns.state import AgentState, BargeInCheck, CallerState, TurnRules, TurnState, TurnStep


def step(state: TurnState, event: TurnEvent, rules: TurnRules, now: float) -> TurnStep:
    """Advance by one event; total: every phase answers every event."""
    return TABLE[state.caller, type(event)](state, event, rules, now)


def _ignore(state: TurnState, event: TurnEvent, rules: TurnRules, now: float) -> TurnStep:
    return state, ()


def _soft_end(state: TurnState, event: SoftEnd, rules: TurnRules, now: float) -> TurnStep:
    if interruptions.too_short(state, event.speech_end, rules):
        return _await(interruptions.deny(state, event.speech_end, rules), rules, event.at, now)
    judged = rules.detection.mode is DetectionMode.SEMANTIC_VAD
    claim = BargeInCheck.NOT_NEEDED if state.claim is BargeInCheck.NOT_NEEDED else BargeInCheck.PENDING
    state = replace(
        state, caller=CallerState.ENDPOINTING, speech_end=event.speech_end, wait=None, claim=claim, asked_at=now
    )
    begin = (Transcribe(state.revision, state.start, event.at, judge=judged), *_draft(state, rules))
    if judged:
        return state, begin
    state, waiting = _await_silence(state, rules=rules, probability=None, processed=event.at, now=now)
    return state, begin + waiting


def _draft(state: TurnState, rules: TurnRules) -> tuple[Command, ...]:
    return (StartDraft(state.revision),) if rules.drafts and rules.replies and state.agent is AgentState.IDLE else ()


def _resumed(state: TurnState, event: SpeechResumed, rules: TurnRules, now: float) -> TurnStep:
    old = state.revision
    overdue = state.claim is BargeInCheck.OVERDUE
    claim = BargeInCheck.NOT_NEEDED if state.claim is BargeInCheck.NOT_NEEDED else BargeInCheck.PENDING
    believed = event.at + RESUME_WINDOWS * VAD_WINDOW  # until then the turn could have been taken
    habit = state.habit.paused((believed - state.speech_end) / STT_RATE)
    state = replace(state, caller=CallerState.SPEAKING, revision=old + 1, wait=None, claim=claim, habit=habit)
    # A reply that went on because the words were overdue is interrupted anew.
    state, paused = interruptions.pause(state, rules, now) if overdue else (state, ())
    return state, (CancelRevision(old), *paused)


def _words_known(state: TurnState, event: TranscriptReady, rules: TurnRules, now: float) -> TurnStep:
    if event.revision != state.revision or state.claim is BargeInCheck.NOT_NEEDED:
        return state, ()
    due = state.claim is BargeInCheck.OVERDUE
    if event.meant:
        state, ended = interruptions.grant(state, rules)
        state, more = _commit(state, rules, now) if due else (state, _draft(state, rules) if ended else ())
        return state, ended + more
    state = replace(state, claim=BargeInCheck.REJECTED)
    if due:
        return _commit(state, rules, now)
    longest = math.inf if state.wait is None else state.wait
    wait = min(longest, rules.barge_in.resume_after_ms / 1000)
    return _await(replace(state, wait=wait), rules, event.processed, now)


def _verdict(state: TurnState, event: VerdictReady, rules: TurnRules, now: float) -> TurnStep:
    if event.revision != state.revision or state.wait is not None:
        return state, ()
    return _await_silence(state, rules=rules, probability=event.probability, processed=event.processed, now=now)


def _await_silence(
    state: TurnState, rules: TurnRules, probability: float | None, processed: int, *, now: float
) -> TurnStep:
    wait = wait_s(rules.detection, rules.endpointing, probability, state.habit)
    return _await(replace(state, wait=wait), rules, processed, now)


def _await(state: TurnState, rules: TurnRules, processed: int, now: float) -> TurnStep:
    left = (state.wait or 0.0) - (processed - state.speech_end) / STT_RATE
    if left <= 0:
        return _commit(state, rules, now)
    if math.isinf(left):
        return state, ()  # turn detection was switched off meanwhile: the client commits
    return state, (WaitUntil(state.revision, now + left),)


def _spoke_on(state: TurnState, event: AudioProcessed, rules: TurnRules, now: float) -> TurnStep:
    if event.processed - state.start < rules.max_utterance_s * STT_RATE:
        return state, ()
    if state.claim is BargeInCheck.REJECTED:
        return interruptions.dismiss(state, speech_end=event.processed, end=event.processed, rules=rules, now=now)
    turn = CommitTurn(state.revision, state.start, event.processed, event.processed, heard=False)
    return _committed(state, turn, rules, rules.replies)


def _heard(state: TurnState, event: AudioProcessed, rules: TurnRules, now: float) -> TurnStep:
    if state.wait is None or event.processed - state.speech_end < state.wait * STT_RATE:
        return state, ()
    return _commit(state, rules, now)


def _wait_over(state: TurnState, event: SilenceElapsed, rules: TurnRules, now: float) -> TurnStep:
    if event.revision != state.revision or state.wait is None or math.isinf(state.wait):
        return state, ()
    return _commit(state, rules, now)


def _commit(state: TurnState, rules: TurnRules, now: float) -> TurnStep:
    end = state.speech_end + round((state.wait or 0.0) * STT_RATE)
    if state.claim is not BargeInCheck.NOT_NEEDED:
        return interruptions.await_words(state, rules, end, now)
    turn = CommitTurn(state.revision, state.start, end, state.speech_end, heard=True)
    return _committed(state, turn, rules, rules.replies)


def _cut_utterance(state: TurnState, event: CommitRequested, rules: TurnRules, now: float) -> TurnStep:
    heard = state.caller is CallerState.ENDPOINTING and state.asked_at > -math.inf
    speech_end = state.speech_end if heard else event.end
    turn = CommitTurn(state.revision, start=state.start, end=event.end, speech_end=speech_end, heard=heard)
    return _committed(state, turn, rules, reply=False)


def _committed(state: TurnState, turn: CommitTurn, rules: TurnRules, reply: bool) -> TurnStep:
    ended: tuple[Command, ...] = ()
    if state.claim is not BargeInCheck.NOT_NEEDED:  # cut before its words were known: it is taken at its length
        state, ended = interruptions.grant(state, rules)
    state = replace(state, caller=CallerState.QUIET, revision=state.revision + 1, start=turn.end, wait=None)
    drafted = turn.revision if rules.drafts and turn.heard else None
    if reply and state.agent is AgentState.IDLE:
        return replace(state, agent=AgentState.REPLYING), (*ended, turn, StartReply(drafted))
    unanswered: tuple[Command, ...] = (turn,) if drafted is None else (turn, DiscardDraft(drafted))
    return replace(state, agent=AgentState.REPLY_QUEUED) if reply else state, ended + unanswered


def _clear(state: TurnState, event: ClearRequested, rules: TurnRules, now: float) -> TurnStep:
    old = state.revision
    state = replace(
        state, caller=CallerState.QUIET, revision=old + 1, start=event.end, wait=None, claim=BargeInCheck.NOT_NEEDED
    )
    state, resumed = interruptions.resume(state)
    return state, (CancelRevision(old), *resumed)


def _reply_requested(state: TurnState, event: ReplyRequested, rules: TurnRules, now: float) -> TurnStep:
    ended: tuple[Command, ...] = ()
    if state.agent is AgentState.PAUSED:
        state, ended = interruptions.grant(state, rules)
    return replace(state, agent=AgentState.REPLYING), (*ended, StartReply(request=event.request))


def _reply_ended(state: TurnState, event: ReplyEnded, rules: TurnRules, now: float) -> TurnStep:
    state = replace(state, replied_at=now)
    if state.agent is AgentState.REPLY_QUEUED:
        return replace(state, agent=AgentState.REPLYING), (StartReply(),)
    state = replace(state, agent=AgentState.IDLE)
    if state.caller is not CallerState.QUIET or rules.idle_s is None:
        return state, ()
    return state, (StartIdleTimer(state.revision, now + rules.idle_s),)


def _nobody_spoke(state: TurnState, event: IdleTimeout, rules: TurnRules, now: float) -> TurnStep:
    if event.revision != state.revision or state.agent is not AgentState.IDLE or rules.idle_s is None:
        return state, ()
    state = replace(state, agent=AgentState.REPLYING, revision=state.revision + 1, start=event.end)
    return state, (CommitIdleTurn(event.start, event.end), StartReply())


Handler = Callable[..., TurnStep]

TABLE: dict[tuple[CallerState, type], Handler] = {
    (CallerState.QUIET, SpeechStarted): interruptions.started,
    (CallerState.QUIET, SoftEnd): _ignore,  # of speech that a clear or a cut already ended
    (CallerState.QUIET, SpeechResumed): interruptions.started,  # it came just when the turn before was committed
    (CallerState.QUIET, VerdictReady): _ignore,  # late, of a turn that is over
    (CallerState.QUIET, TranscriptReady): _ignore,  # likewise
    (CallerState.QUIET, InterimReady): _ignore,
    (CallerState.QUIET, AudioProcessed): _ignore,
    (CallerState.QUIET, SilenceElapsed): _ignore,
    (CallerState.QUIET, CommitRequested): _cut_utterance,
    (CallerState.QUIET, ClearRequested): _clear,
    (CallerState.QUIET, ReplyRequested): _reply_requested,
    (CallerState.QUIET, ReplyEnded): _reply_ended,
    (CallerState.QUIET, IdleTimeout): _nobody_spoke,
    (CallerState.SPEAKING, SpeechStarted): _ignore,
    (CallerState.SPEAKING, SoftEnd): _soft_end,
    (CallerState.SPEAKING, SpeechResumed): _ignore,
    (CallerState.SPEAKING, VerdictReady): _ignore,  # of a revision that resumed speech overtook
    (CallerState.SPEAKING, TranscriptReady): _ignore,  # likewise
    (CallerState.SPEAKING, InterimReady): interruptions.guessed,
    (CallerState.SPEAKING, AudioProcessed): _spoke_on,
    (CallerState.SPEAKING, SilenceElapsed): _ignore,
    (CallerState.SPEAKING, CommitRequested): _cut_utterance,
    (CallerState.SPEAKING, ClearRequested): _clear,
    (CallerState.SPEAKING, ReplyRequested): _reply_requested,
    (CallerState.SPEAKING, ReplyEnded): _reply_ended,
    (CallerState.SPEAKING, IdleTimeout): _ignore,
    (CallerState.ENDPOINTING, SpeechStarted): _resumed,
    (CallerState.ENDPOINTING, SoftEnd): _ignore,
    (CallerState.ENDPOINTING, SpeechResumed): _resumed,
    (CallerState.ENDPOINTING, VerdictReady): _verdict,
    (CallerState.ENDPOINTING, TranscriptReady): _words_known,
    (CallerState.ENDPOINTING, InterimReady): _ignore,  # all the words are on their way
    (CallerState.ENDPOINTING, AudioProcessed): _heard,
    (CallerState.ENDPOINTING, SilenceElapsed): _wait_over,
    (CallerState.ENDPOINTING, CommitRequested): _cut_utterance,
    (CallerState.ENDPOINTING, ClearRequested): _clear,
    (CallerState.ENDPOINTING, ReplyRequested): _reply_requested,
    (CallerState.ENDPOINTING, ReplyEnded): _reply_ended,
    (CallerState.ENDPOINTING, IdleTimeout): _ignore,
}
