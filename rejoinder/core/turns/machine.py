"""The turn machine: decides when a turn of the caller ends, and when the agent replies, pauses and stops.

`step` maps a state and an event to a new state and a list of commands. It is a pure function. The session
(`actors.session`) sends it one event at a time and carries out the commands in order. `TABLE` at the end of this file
names the handler of every event in every caller state.

States
------
`TurnState` combines three small state machines. The first state machine follows the caller:

    QUIET ----SpeechStarted----> SPEAKING ----SoftEnd----> ENDPOINTING
      ^                            |  ^                      |  |
      |                            |  +----SpeechResumed-----+  |
      +-----longest utterance------+                            |
      +-----------------required silence has passed-------------+

- QUIET: No utterance is open. Speech opens one, and the client is told (`AnnounceSpeech`).
- SPEAKING: The utterance grows. If it reaches `max_utterance_s`, it is committed as a turn.
- ENDPOINTING: Speech has stopped, but the caller may only be pausing. The machine starts the work that a reply needs,
  and waits for a longer silence. If speech resumes before this silence has passed, the work is cancelled. Otherwise the
  utterance is committed as a turn (`CommitTurn`).

In any state, the client can commit the utterance (`CommitRequested`) or drop it (`ClearRequested`). The caller is then
QUIET.

The second state machine follows the agent:

    IDLE          StartReply                         -> REPLYING
    REPLYING      ReplyEnded or CancelReply          -> IDLE
    REPLYING      PauseReply                         -> PAUSED
    REPLYING      CommitTurn, to be answered         -> REPLY_QUEUED
    PAUSED        ResumeReply                        -> REPLYING
    PAUSED        ReplyEnded or CancelReply          -> IDLE
    REPLY_QUEUED  ReplyEnded, then StartReply        -> REPLYING
    REPLY_QUEUED  CancelReply                        -> IDLE

- IDLE: No reply is under way.
- REPLYING: A reply is under way. It ends when the caller has heard its last sample.
- PAUSED: Speech over the reply has stopped its playout. The reply is resumed or cancelled once it is known whether
  that speech has words. A reply is never paused while the caller is QUIET.
- REPLY_QUEUED: A turn was committed during a reply without interrupting it. The next reply starts when this one ends.
  It answers all turns that are committed until then.

The third is the barge-in check of the utterance: NOT_NEEDED, PENDING, OVERDUE or REJECTED, described in
`interruptions`. It is NOT_NEEDED for most utterances. Speech over a reply, or just after one, may be noise or an echo,
so such an utterance is checked. A checked utterance becomes a turn only if its words are addressed to the agent.

A turn, event by event
----------------------
1. `SpeechStarted` opens the utterance. The caller is SPEAKING.
2. `SoftEnd` is a tentative end of speech: a short silence, often within a sentence. The caller is ENDPOINTING.
   `Transcribe` requests the transcript, and with semantic_vad the verdict of the turn detector. `StartDraft` starts a
   speculative reply.
3. The required silence is decided (`endpointing.endpoint_silence_s`). With server_vad it is configured, so it is known
   at once. With semantic_vad it follows from the probability in `VerdictReady`, which comes again when more evidence is
   known. `WaitUntil` then sets a timer for the rest.
4. `AudioProcessed` or `SilenceElapsed` reports that the silence has passed. `CommitTurn` makes the utterance a turn,
   and `StartReply` starts the reply or releases the draft. The caller is QUIET, and the agent is REPLYING.
5. `ReplyEnded` reports the end of playout. The agent is IDLE. `StartIdleTimer` follows if an idle timeout is set.

Revisions
---------
`TurnState.revision` numbers the versions of the utterance. It increases when speech resumes after a tentative end, and
when an utterance is committed, dismissed or cleared. Commands name their revision, and results return it. A result for
an older revision is ignored, so nothing that was computed for half a sentence can take effect.

Clocks
------
`now` is monotonic time in seconds. Sample indices count the caller's audio at 16 kHz. The required silence has passed
as soon as either clock says so. The audio clock (`AudioProcessed`) leads when audio arrives faster than real time. The
wall clock (`SilenceElapsed`) leads when the client stops sending audio.

Replies
-------
A turn that voice activity ended is answered if the client left `create_response` on. A turn that the client commits
(`CommitRequested`) is not answered: the client sends response.create when it wants a reply (`ReplyRequested`). With
turn detection off, only the client ends turns. If the idle timeout passes, the silence itself becomes a turn, and it
is answered (`CommitIdleTurn`).

Drafts
------
A draft is a speculative reply that starts at the tentative end of speech. It is started only if the turn would be
answered at once. Every `StartDraft(r)` is followed by exactly one of three commands: `StartReply(draft=r)` releases it
to the caller, `CancelRevision(r)` drops it because the utterance has changed, and `DiscardDraft(r)` drops it because
the turn is not answered now.

Guarantees
----------
Property tests check these for any order of events (tests/core/turns):

- A reply starts only while no other is under way, unless the client requests it.
- A paused reply is resumed or cancelled exactly once, unless it ends by itself.
- A turn ends only after its required silence, at its longest length, or by the client.
- A dismissed utterance is neither committed nor answered.
- A draft is released only if it was started for the audio of the whole turn.
- A result for an older revision changes nothing.
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
from rejoinder.core.turns.endpointing import DetectionMode, endpoint_silence_s
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
    """Return the state after one event, and the commands that it causes.

    Args:
        state: The state before the event.
        event: The event. Every event is accepted in every state.
        rules: The session's current configuration. It may change between events.
        now: Monotonic time of the event, in seconds.
    """
    return TABLE[state.caller, type(event)](state, event, rules, now)


def _ignore(state: TurnState, event: TurnEvent, rules: TurnRules, now: float) -> TurnStep:
    return state, ()


def _soft_end(state: TurnState, event: SoftEnd, rules: TurnRules, now: float) -> TurnStep:
    """Enter ENDPOINTING after a tentative end of speech, and request the work that a reply needs.

    The work is the transcript, the turn detector's verdict (with semantic_vad) and a speculative reply (if one may
    start). An utterance that is too short to be speech is rejected instead. A faint utterance needs a barge-in check,
    because it may be background speech.
    """
    if interruptions.too_short(state, event.speech_end, rules):
        return _schedule_commit(interruptions.reject_short(state, event.speech_end, rules), rules, event.at, now)
    judged = rules.detection.mode is DetectionMode.SEMANTIC_VAD
    state = replace(
        state,
        caller=CallerState.ENDPOINTING,
        speech_end=event.speech_end,
        required_silence_s=None,
        barge_in_check=BargeInCheck.PENDING if event.faint else _restarted(state.barge_in_check),
        transcript_requested_at=now,
    )
    transcribe = Transcribe(state.revision, state.start, event.at, detect_end_of_turn=judged)
    begin = (transcribe, *_start_draft(state, rules))
    if judged:
        return state, begin
    state, waiting = _decide_silence(state, rules=rules, probability=None, processed=event.at, now=now)
    return state, begin + waiting


def _restarted(check: BargeInCheck) -> BargeInCheck:
    """Return the state of the barge-in check after more speech in the same utterance.

    NOT_NEEDED stays. Any other state becomes PENDING, because the old result did not include the new words.
    """
    return BargeInCheck.NOT_NEEDED if check is BargeInCheck.NOT_NEEDED else BargeInCheck.PENDING


def _start_draft(state: TurnState, rules: TurnRules) -> tuple[Command, ...]:
    answered_at_once = rules.drafts and rules.auto_reply and state.agent is AgentState.IDLE
    return (StartDraft(state.revision),) if answered_at_once else ()


def _speech_resumed(state: TurnState, event: SpeechResumed, rules: TurnRules, now: float) -> TurnStep:
    """Continue the utterance as a new revision, and cancel the work for the old revision."""
    old = state.revision
    overdue = state.barge_in_check is BargeInCheck.OVERDUE
    # The pause is counted until the detector confirms the new speech, RESUME_WINDOWS windows after its start. Until
    # then the turn could have been committed.
    confirmed = event.at + RESUME_WINDOWS * VAD_WINDOW
    state = replace(
        state,
        caller=CallerState.SPEAKING,
        revision=old + 1,
        required_silence_s=None,
        barge_in_check=_restarted(state.barge_in_check),
        pauses=state.pauses.with_pause((confirmed - state.speech_end) / STT_RATE),
    )
    # In OVERDUE, the reply may have been resumed because the transcript was late. The new speech pauses it again.
    state, paused = interruptions.pause_reply(state, rules, now) if overdue else (state, ())
    return state, (CancelRevision(old), *paused)


def _transcript_ready(state: TurnState, event: TranscriptReady, rules: TurnRules, now: float) -> TurnStep:
    """Decide the barge-in check by the whole transcript of the revision.

    Addressed words cancel the reply, and also end the turn if its required silence has passed. Otherwise the check is
    REJECTED, and the utterance is dismissed after at most `resume_after_ms` of silence.
    """
    if event.revision != state.revision or state.barge_in_check is BargeInCheck.NOT_NEEDED:
        return state, ()
    overdue = state.barge_in_check is BargeInCheck.OVERDUE
    if event.addressed:
        state, cancelled = interruptions.accept(state, rules)
        if overdue:
            state, more = _commit(state, rules, now)
        else:
            more = _start_draft(state, rules) if cancelled else ()
        return state, cancelled + more
    state = replace(state, barge_in_check=BargeInCheck.REJECTED)
    if overdue:
        return _commit(state, rules, now)
    longest_s = math.inf if state.required_silence_s is None else state.required_silence_s
    silence_s = min(longest_s, rules.barge_in.resume_after_ms / 1000)
    return _schedule_commit(replace(state, required_silence_s=silence_s), rules, event.processed, now)


def _verdict_ready(state: TurnState, event: VerdictReady, rules: TurnRules, now: float) -> TurnStep:
    """Decide the required silence from the evidence so far. A later verdict knows more and replaces an earlier one.

    The verdict is ignored if the barge-in check is REJECTED: `resume_after_ms` of silence then dismisses the utterance.
    """
    if event.revision != state.revision or state.barge_in_check is BargeInCheck.REJECTED:
        return state, ()
    return _decide_silence(state, rules=rules, probability=event.probability, processed=event.processed, now=now)


def _decide_silence(
    state: TurnState, rules: TurnRules, probability: float | None, processed: int, *, now: float
) -> TurnStep:
    silence_s = endpoint_silence_s(rules.detection, rules.endpointing, probability, state.pauses)
    return _schedule_commit(replace(state, required_silence_s=silence_s), rules, processed, now)


def _schedule_commit(state: TurnState, rules: TurnRules, processed: int, now: float) -> TurnStep:
    """Commit the turn if the required silence has passed at sample `processed`.

    Otherwise set a timer for the remaining silence.
    """
    left_s = (state.required_silence_s or 0.0) - (processed - state.speech_end) / STT_RATE
    if left_s <= 0:
        return _commit(state, rules, now)
    if math.isinf(left_s):
        return state, ()  # Turn detection was switched off during the utterance, so only the client ends the turn.
    return state, (WaitUntil(state.revision, now + left_s),)


def _limit_utterance(state: TurnState, event: AudioProcessed, rules: TurnRules, now: float) -> TurnStep:
    """End an utterance that has reached `max_utterance_s`: commit it, or dismiss it if its check is REJECTED."""
    if event.processed - state.start < rules.max_utterance_s * STT_RATE:
        return state, ()
    if state.barge_in_check is BargeInCheck.REJECTED:
        return interruptions.dismiss(state, speech_end=event.processed, end=event.processed, rules=rules, now=now)
    turn = CommitTurn(state.revision, state.start, event.processed, event.processed, transcript_requested=False)
    return _finish_turn(state, turn, rules, rules.auto_reply)


def _audio_processed(state: TurnState, event: AudioProcessed, rules: TurnRules, now: float) -> TurnStep:
    """Commit the turn if its required silence has passed, counted in samples of the caller's audio."""
    required_s = state.required_silence_s
    if required_s is None or event.processed - state.speech_end < required_s * STT_RATE:
        return state, ()
    return _commit(state, rules, now)


def _silence_elapsed(state: TurnState, event: SilenceElapsed, rules: TurnRules, now: float) -> TurnStep:
    """Commit the turn, because the timer for its required silence has fired. Ignore a timer of an older revision."""
    required_s = state.required_silence_s
    if event.revision != state.revision or required_s is None or math.isinf(required_s):
        return state, ()
    return _commit(state, rules, now)


def _commit(state: TurnState, rules: TurnRules, now: float) -> TurnStep:
    """Commit the utterance as a turn after its required silence.

    If the utterance has not passed its barge-in check, wait for its words or dismiss it instead.
    """
    end = state.speech_end + round((state.required_silence_s or 0.0) * STT_RATE)
    if state.barge_in_check is not BargeInCheck.NOT_NEEDED:
        return interruptions.await_words(state, rules, end, now)
    turn = CommitTurn(state.revision, state.start, end, state.speech_end, transcript_requested=True)
    return _finish_turn(state, turn, rules, rules.auto_reply)


def _commit_requested(state: TurnState, event: CommitRequested, rules: TurnRules, now: float) -> TurnStep:
    """Commit the audio up to sample `event.end` as a turn, without a barge-in check and without a reply."""
    requested = state.caller is CallerState.ENDPOINTING and state.transcript_requested_at > -math.inf
    turn = CommitTurn(
        state.revision,
        start=state.start,
        end=event.end,
        speech_end=state.speech_end if requested else event.end,
        transcript_requested=requested,
    )
    return _finish_turn(state, turn, rules, reply=False)


def _finish_turn(state: TurnState, turn: CommitTurn, rules: TurnRules, reply: bool) -> TurnStep:
    """Commit `turn`. If `reply` is True, answer it now, or after a reply that is under way has ended."""
    cancelled: tuple[Command, ...] = ()
    # The client or the maximum length has ended the utterance before its words were checked. It passes the check.
    if state.barge_in_check is not BargeInCheck.NOT_NEEDED:
        state, cancelled = interruptions.accept(state, rules)
    state = replace(
        state, caller=CallerState.QUIET, revision=state.revision + 1, start=turn.end, required_silence_s=None
    )
    draft = turn.revision if rules.drafts and turn.transcript_requested else None
    if reply and state.agent is AgentState.IDLE:
        return replace(state, agent=AgentState.REPLYING), (*cancelled, turn, StartReply(draft))
    unanswered: tuple[Command, ...] = (turn,) if draft is None else (turn, DiscardDraft(draft))
    return replace(state, agent=AgentState.REPLY_QUEUED) if reply else state, cancelled + unanswered


def _clear_requested(state: TurnState, event: ClearRequested, rules: TurnRules, now: float) -> TurnStep:
    """Drop the utterance because the client requests it, and resume the reply that the utterance paused."""
    old = state.revision
    state = replace(
        state,
        caller=CallerState.QUIET,
        revision=old + 1,
        start=event.end,
        required_silence_s=None,
        barge_in_check=BargeInCheck.NOT_NEEDED,
        unannounced=False,
    )
    state, resumed = interruptions.resume_reply(state)
    return state, (CancelRevision(old), *resumed)


def _reply_requested(state: TurnState, event: ReplyRequested, rules: TurnRules, now: float) -> TurnStep:
    """Start the reply that the client requests. Cancel a paused reply first."""
    cancelled: tuple[Command, ...] = ()
    if state.agent is AgentState.PAUSED:
        state, cancelled = interruptions.accept(state, rules)
    return replace(state, agent=AgentState.REPLYING), (*cancelled, StartReply(request=event.request))


def _reply_ended(state: TurnState, event: ReplyEnded, rules: TurnRules, now: float) -> TurnStep:
    """Start the queued reply. If none is queued and the caller is QUIET, start the idle timer if one is configured."""
    state = replace(state, reply_ended_at=now)
    if state.agent is AgentState.REPLY_QUEUED:
        return replace(state, agent=AgentState.REPLYING), (StartReply(),)
    state = replace(state, agent=AgentState.IDLE)
    if state.caller is not CallerState.QUIET or rules.idle_timeout_s is None:
        return state, ()
    return state, (StartIdleTimer(state.revision, now + rules.idle_timeout_s),)


def _idle_timeout(state: TurnState, event: IdleTimeout, rules: TurnRules, now: float) -> TurnStep:
    """Commit the silence of the idle timeout as a turn and answer it, if the agent is still IDLE."""
    if event.revision != state.revision or state.agent is not AgentState.IDLE or rules.idle_timeout_s is None:
        return state, ()
    state = replace(state, agent=AgentState.REPLYING, revision=state.revision + 1, start=event.end)
    return state, (CommitIdleTurn(event.start, event.end), StartReply())


Handler = Callable[..., TurnStep]

# The handler of each event in each caller state. tests/core/turns/test_machine.py checks that every pair has an entry.
TABLE: dict[tuple[CallerState, type], Handler] = {
    (CallerState.QUIET, SpeechStarted): interruptions.speech_started,
    (CallerState.QUIET, SoftEnd): _ignore,  # SoftEnd: the client has already cleared or committed this speech.
    # SpeechResumed: the detector decided this before it learned that the turn was committed. The speech therefore opens
    # a new utterance.
    (CallerState.QUIET, SpeechResumed): interruptions.speech_started,
    (CallerState.QUIET, VerdictReady): _ignore,  # The turn that this result belongs to is over.
    (CallerState.QUIET, TranscriptReady): _ignore,  # The turn that this result belongs to is over.
    (CallerState.QUIET, InterimReady): _ignore,  # The turn that this result belongs to is over.
    (CallerState.QUIET, AudioProcessed): _ignore,
    (CallerState.QUIET, SilenceElapsed): _ignore,  # The turn that this timer belongs to is over.
    (CallerState.QUIET, CommitRequested): _commit_requested,
    (CallerState.QUIET, ClearRequested): _clear_requested,
    (CallerState.QUIET, ReplyRequested): _reply_requested,
    (CallerState.QUIET, ReplyEnded): _reply_ended,
    (CallerState.QUIET, IdleTimeout): _idle_timeout,
    (CallerState.SPEAKING, SpeechStarted): _ignore,
    (CallerState.SPEAKING, SoftEnd): _soft_end,
    (CallerState.SPEAKING, SpeechResumed): _ignore,
    (CallerState.SPEAKING, VerdictReady): _ignore,  # Speech has resumed, so this result is outdated.
    (CallerState.SPEAKING, TranscriptReady): _ignore,  # Speech has resumed, so this result is outdated.
    (CallerState.SPEAKING, InterimReady): interruptions.interim_ready,
    (CallerState.SPEAKING, AudioProcessed): _limit_utterance,
    (CallerState.SPEAKING, SilenceElapsed): _ignore,  # Speech has resumed, so this timer is outdated.
    (CallerState.SPEAKING, CommitRequested): _commit_requested,
    (CallerState.SPEAKING, ClearRequested): _clear_requested,
    (CallerState.SPEAKING, ReplyRequested): _reply_requested,
    (CallerState.SPEAKING, ReplyEnded): _reply_ended,
    (CallerState.SPEAKING, IdleTimeout): _ignore,  # The caller is speaking, so there is no idle turn.
    (CallerState.ENDPOINTING, SpeechStarted): _speech_resumed,
    (CallerState.ENDPOINTING, SoftEnd): _ignore,
    (CallerState.ENDPOINTING, SpeechResumed): _speech_resumed,
    (CallerState.ENDPOINTING, VerdictReady): _verdict_ready,
    (CallerState.ENDPOINTING, TranscriptReady): _transcript_ready,
    (CallerState.ENDPOINTING, InterimReady): _ignore,  # The transcript of the whole utterance is coming.
    (CallerState.ENDPOINTING, AudioProcessed): _audio_processed,
    (CallerState.ENDPOINTING, SilenceElapsed): _silence_elapsed,
    (CallerState.ENDPOINTING, CommitRequested): _commit_requested,
    (CallerState.ENDPOINTING, ClearRequested): _clear_requested,
    (CallerState.ENDPOINTING, ReplyRequested): _reply_requested,
    (CallerState.ENDPOINTING, ReplyEnded): _reply_ended,
    (CallerState.ENDPOINTING, IdleTimeout): _ignore,  # The caller has just spoken, so there is no idle turn.
}
