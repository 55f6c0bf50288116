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
from rejoinder.core.turns.endpointing import DetectionMode, wait_s
from rejoinder.core.turns.events import (
    AudioHeard,
    ClearRequested,
    CommitRequested,
    Guessed,
    Heard,
    NobodySpoke,
    ReplyEnded,
    ReplyRequested,
    TurnEvent,
    Verdict,
    WaitOver,
)
from rejoinder.core.turns.speech_detector import RESUME_WINDOWS, SoftEnd, SpeechResumed, SpeechStarted
from rejoinder.core.turns.state import Agent, Caller, Claim, Step, TurnRules, TurnState


def step(state: TurnState, event: TurnEvent, rules: TurnRules, now: float) -> Step:
    """Advance by one event; total: every phase answers every event."""
    return TABLE[state.caller, type(event)](state, event, rules, now)


def _ignore(state: TurnState, event: TurnEvent, rules: TurnRules, now: float) -> Step:
    return state, ()


def _soft_end(state: TurnState, event: SoftEnd, rules: TurnRules, now: float) -> Step:
    if interruptions.too_short(state, event.speech_end, rules):
        return _await(interruptions.deny(state, event.speech_end, rules), rules, event.at, now)
    judged = rules.detection.mode is DetectionMode.SEMANTIC_VAD
    claim = Claim.NONE if state.claim is Claim.NONE else Claim.OPEN
    state = replace(state, caller=Caller.SETTLING, speech_end=event.speech_end, wait=None, claim=claim, asked_at=now)
    begin = (Hear(state.revision, state.start, event.at, judge=judged), *_draft(state, rules))
    if judged:
        return state, begin
    state, waiting = _await_silence(state, rules, None, event.at, now)
    return state, begin + waiting


def _draft(state: TurnState, rules: TurnRules) -> tuple[Command, ...]:
    return (Draft(state.revision),) if rules.drafts and rules.replies and state.agent is Agent.IDLE else ()


def _resumed(state: TurnState, event: SpeechResumed, rules: TurnRules, now: float) -> Step:
    old = state.revision
    overdue = state.claim is Claim.DUE
    claim = Claim.NONE if state.claim is Claim.NONE else Claim.OPEN
    believed = event.at + RESUME_WINDOWS * VAD_WINDOW  # until then the turn could have been taken
    habit = state.habit.paused((believed - state.speech_end) / STT_RATE)
    state = replace(state, caller=Caller.SPEAKING, revision=old + 1, wait=None, claim=claim, habit=habit)
    # A reply that went on because the words were overdue is interrupted anew.
    state, paused = interruptions.pause(state, rules, now) if overdue else (state, ())
    return state, (Forget(old), *paused)


def _words_known(state: TurnState, event: Heard, rules: TurnRules, now: float) -> Step:
    if event.revision != state.revision or state.claim is Claim.NONE:
        return state, ()
    due = state.claim is Claim.DUE
    if event.meant:
        state, ended = interruptions.grant(state, rules)
        state, more = _commit(state, rules, now) if due else (state, _draft(state, rules) if ended else ())
        return state, ended + more
    state = replace(state, claim=Claim.DENIED)
    if due:
        return _commit(state, rules, now)
    longest = math.inf if state.wait is None else state.wait
    wait = min(longest, rules.barge_in.resume_after_ms / 1000)
    return _await(replace(state, wait=wait), rules, event.processed, now)


def _verdict(state: TurnState, event: Verdict, rules: TurnRules, now: float) -> Step:
    if event.revision != state.revision or state.wait is not None:
        return state, ()
    return _await_silence(state, rules, event.probability, event.processed, now)


def _await_silence(state: TurnState, rules: TurnRules, probability: float | None, processed: int, now: float) -> Step:
    wait = wait_s(rules.detection, rules.endpointing, probability, state.habit)
    return _await(replace(state, wait=wait), rules, processed, now)


def _await(state: TurnState, rules: TurnRules, processed: int, now: float) -> Step:
    left = (state.wait or 0.0) - (processed - state.speech_end) / STT_RATE
    if left <= 0:
        return _commit(state, rules, now)
    if math.isinf(left):
        return state, ()  # turn detection was switched off meanwhile: the client commits
    return state, (WaitUntil(state.revision, now + left),)


def _spoke_on(state: TurnState, event: AudioHeard, rules: TurnRules, now: float) -> Step:
    if event.processed - state.start < rules.max_utterance_s * STT_RATE:
        return state, ()
    if state.claim is Claim.DENIED:
        return interruptions.dismiss(state, event.processed, event.processed, rules, now)
    turn = CommitTurn(state.revision, state.start, event.processed, event.processed, heard=False)
    return _committed(state, turn, rules, rules.replies)


def _heard(state: TurnState, event: AudioHeard, rules: TurnRules, now: float) -> Step:
    if state.wait is None or event.processed - state.speech_end < state.wait * STT_RATE:
        return state, ()
    return _commit(state, rules, now)


def _wait_over(state: TurnState, event: WaitOver, rules: TurnRules, now: float) -> Step:
    if event.revision != state.revision or state.wait is None or math.isinf(state.wait):
        return state, ()
    return _commit(state, rules, now)


def _commit(state: TurnState, rules: TurnRules, now: float) -> Step:
    end = state.speech_end + round((state.wait or 0.0) * STT_RATE)
    if state.claim is not Claim.NONE:
        return interruptions.await_words(state, rules, end, now)
    turn = CommitTurn(state.revision, state.start, end, state.speech_end, heard=True)
    return _committed(state, turn, rules, rules.replies)


def _cut_utterance(state: TurnState, event: CommitRequested, rules: TurnRules, now: float) -> Step:
    heard = state.caller is Caller.SETTLING and state.asked_at > -math.inf
    speech_end = state.speech_end if heard else event.end
    turn = CommitTurn(state.revision, state.start, event.end, speech_end, heard)
    return _committed(state, turn, rules, reply=False)


def _committed(state: TurnState, turn: CommitTurn, rules: TurnRules, reply: bool) -> Step:
    ended: tuple[Command, ...] = ()
    if state.claim is not Claim.NONE:  # cut before its words were known: it is taken at its length
        state, ended = interruptions.grant(state, rules)
    state = replace(state, caller=Caller.QUIET, revision=state.revision + 1, start=turn.end, wait=None)
    drafted = turn.revision if rules.drafts and turn.heard else None
    if reply and state.agent is Agent.IDLE:
        return replace(state, agent=Agent.REPLYING), (*ended, turn, StartReply(drafted))
    unanswered: tuple[Command, ...] = (turn,) if drafted is None else (turn, Discard(drafted))
    return replace(state, agent=Agent.OWING) if reply else state, ended + unanswered


def _clear(state: TurnState, event: ClearRequested, rules: TurnRules, now: float) -> Step:
    old = state.revision
    state = replace(state, caller=Caller.QUIET, revision=old + 1, start=event.end, wait=None, claim=Claim.NONE)
    state, resumed = interruptions.resume(state)
    return state, (Forget(old), *resumed)


def _reply_requested(state: TurnState, event: ReplyRequested, rules: TurnRules, now: float) -> Step:
    ended: tuple[Command, ...] = ()
    if state.agent is Agent.PAUSED:
        state, ended = interruptions.grant(state, rules)
    return replace(state, agent=Agent.REPLYING), (*ended, StartReply())


def _reply_ended(state: TurnState, event: ReplyEnded, rules: TurnRules, now: float) -> Step:
    state = replace(state, replied_at=now)
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
    (Caller.QUIET, SpeechStarted): interruptions.started,
    (Caller.QUIET, SoftEnd): _ignore,  # of speech that a clear or a cut already ended
    (Caller.QUIET, SpeechResumed): interruptions.started,  # it came just when the turn before was committed
    (Caller.QUIET, Verdict): _ignore,  # late, of a turn that is over
    (Caller.QUIET, Heard): _ignore,  # likewise
    (Caller.QUIET, Guessed): _ignore,
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
    (Caller.SPEAKING, Heard): _ignore,  # likewise
    (Caller.SPEAKING, Guessed): interruptions.guessed,
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
    (Caller.SETTLING, Heard): _words_known,
    (Caller.SETTLING, Guessed): _ignore,  # all the words are on their way
    (Caller.SETTLING, AudioHeard): _heard,
    (Caller.SETTLING, WaitOver): _wait_over,
    (Caller.SETTLING, CommitRequested): _cut_utterance,
    (Caller.SETTLING, ClearRequested): _clear,
    (Caller.SETTLING, ReplyRequested): _reply_requested,
    (Caller.SETTLING, ReplyEnded): _reply_ended,
    (Caller.SETTLING, NobodySpoke): _ignore,
}
