"""Speech over a reply in the turn machine: paused at once, ended by words, resumed without them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoinder.core.settings.settings import BargeInSettings
from rejoinder.core.turns.commands import (
    AnnounceSpeech,
    CancelReply,
    CancelRevision,
    Command,
    CommitTurn,
    DismissUtterance,
    PauseReply,
    ResumeReply,
    StartDraft,
    StartIdleTimer,
    StartReply,
    Transcribe,
    WaitUntil,
)
from rejoinder.core.turns.events import (
    AudioProcessed,
    ClearRequested,
    CommitRequested,
    InterimReady,
    ReplyEnded,
    ReplyRequested,
    SilenceElapsed,
    TranscriptReady,
    TurnEvent,
    VerdictReady,
)
from rejoinder.core.turns.speech_detector import SoftEnd, SpeechResumed, SpeechStarted
from rejoinder.core.turns.state import AgentState, BargeInCheck, CallerState, TurnRules, TurnState
from tests.core.turns.test_machine import IDLE, SEMANTIC, SERVER, Machine, all_rules, changed, events

TIMEOUT_S = SEMANTIC.barge_in.confirm_timeout_ms / 1000


def over_a_reply(rules: TurnRules = SEMANTIC) -> Machine:
    """Somebody speaks over a reply: a second, and a soft end."""
    machine = Machine(rules, TurnState(agent=AgentState.REPLYING))
    assert machine.feed(SpeechStarted(16_000)) == [AnnounceSpeech(16_000), PauseReply()]
    assert machine.state.agent is AgentState.PAUSED
    machine.feed(SoftEnd(32_000, 33_536))
    return machine


def test_words_end_the_reply() -> None:
    """Only then is it cancelled; the turn goes on as any other, with a draft."""
    machine = over_a_reply(replace(SEMANTIC, drafts=True))
    assert machine.feed(TranscriptReady(0, True, 34_000)) == [CancelReply("turn_detected"), StartDraft(0)]
    assert [type(command) for command in machine.feed(VerdictReady(0, 1.0, 40_000))] == [CommitTurn, StartReply]


def test_a_noise_leaves_nothing_behind() -> None:
    """After its silence it is dismissed, and the reply goes on: no turn, no reply of its own, and a new revision."""
    machine = over_a_reply()
    [wait] = machine.feed(TranscriptReady(0, False, 33_536))
    assert isinstance(wait, WaitUntil)
    assert wait.at == pytest.approx(100 + 0.3 - 0.096)
    end = 32_000 + 4_800
    assert machine.feed(SilenceElapsed(0)) == [CancelRevision(0), DismissUtterance(32_000, end), ResumeReply()]
    state = machine.state
    assert (state.agent, state.caller, state.revision, state.start) == (AgentState.REPLYING, CallerState.QUIET, 1, end)
    assert machine.feed(VerdictReady(0, 1.0, 40_000), SilenceElapsed(0), TranscriptReady(0, True, 40_000)) == []


def test_a_click_is_no_speech() -> None:
    """What is shorter than min_speech_ms is dismissed after its silence, without asking anybody."""
    machine = Machine(state=TurnState(agent=AgentState.REPLYING))
    machine.feed(SpeechStarted(16_000))
    [wait] = machine.feed(SoftEnd(17_024, 18_048))
    assert isinstance(wait, WaitUntil)
    assert machine.feed(SilenceElapsed(0)) == [
        CancelRevision(0),
        DismissUtterance(17_024, 17_024 + 4_800),
        ResumeReply(),
    ]


def test_a_click_may_be_the_first_sound_of_a_word() -> None:
    """Speech behind it is the same utterance, and heard with it; a client's commit takes it all."""
    machine = Machine(state=TurnState(agent=AgentState.REPLYING))
    machine.feed(SpeechStarted(16_000), SoftEnd(17_024, 18_048))
    assert machine.feed(SpeechResumed(19_000)) == [CancelRevision(0)]
    assert machine.feed(SoftEnd(32_000, 33_536)) == [Transcribe(1, 16_000, 33_536, judge=True)]
    machine = Machine(state=TurnState(agent=AgentState.REPLYING))
    machine.feed(SpeechStarted(16_000), SoftEnd(17_024, 18_048))
    [_, turn] = machine.feed(CommitRequested(20_000))
    assert turn == CommitTurn(0, 16_000, 20_000, 20_000, heard=False)


def test_silence_does_not_take_a_turn_whose_words_are_not_known() -> None:
    """The turn waits for them, also under server_vad, and is taken at once when they come."""
    machine = over_a_reply(SERVER)
    [wait] = machine.feed(SilenceElapsed(0))
    assert wait == WaitUntil(0, 100 + TIMEOUT_S)
    assert machine.state.claim is BargeInCheck.OVERDUE
    assert machine.feed(AudioProcessed(60_000)) == []
    assert [type(c) for c in machine.feed(TranscriptReady(0, True, 60_000))] == [CancelReply, CommitTurn, StartReply]


def overdue() -> Machine:
    """Words over a reply that are not known confirm_timeout_ms after the soft end: the reply goes on."""
    machine = over_a_reply()
    machine.feed(VerdictReady(0, 1.0, 40_000))
    machine.now += TIMEOUT_S
    assert machine.feed(SilenceElapsed(0)) == [ResumeReply()]
    return machine


def test_a_reply_is_not_silenced_by_words_that_do_not_come() -> None:
    """It is resumed once; nothing is taken or dismissed."""
    machine = overdue()
    assert machine.feed(AudioProcessed(60_000), SilenceElapsed(0)) == []
    assert (machine.state.caller, machine.state.claim) == (CallerState.ENDPOINTING, BargeInCheck.OVERDUE)


def test_words_that_come_late_are_a_turn() -> None:
    """They end the reply that goes on, or follow the one that ended meanwhile."""
    assert [type(c) for c in overdue().feed(TranscriptReady(0, True, 90_000))] == [CancelReply, CommitTurn, StartReply]
    machine = overdue()
    machine.feed(ReplyEnded())
    assert [type(c) for c in machine.feed(TranscriptReady(0, True, 90_000))] == [CommitTurn, StartReply]


def test_a_noise_that_is_known_late_is_dismissed() -> None:
    """The reply has gone on already."""
    assert [type(c) for c in overdue().feed(TranscriptReady(0, False, 90_000))] == [CancelRevision, DismissUtterance]


def test_who_speaks_again_over_a_reply_that_went_on_is_heard() -> None:
    """The reply is paused again, and all of the utterance is asked for."""
    machine = overdue()
    assert machine.feed(SpeechResumed(100_000)) == [CancelRevision(0), PauseReply()]
    assert machine.feed(SoftEnd(120_000, 121_536)) == [Transcribe(1, 16_000, 121_536, judge=True)]
    assert machine.feed(TranscriptReady(1, True, 122_000)) == [CancelReply("turn_detected")]


def test_words_end_the_reply_while_the_caller_goes_on() -> None:
    """A guess is enough, and the pause behind it changes nothing any more."""
    machine = Machine(state=TurnState(agent=AgentState.REPLYING))
    machine.feed(SpeechStarted(16_000))
    assert machine.feed(InterimReady(0, False)) == []
    assert machine.feed(InterimReady(0, True)) == [CancelReply("turn_detected")]
    assert machine.feed(SoftEnd(64_000, 65_536)) == [Transcribe(0, 16_000, 65_536, judge=True)]
    assert machine.feed(TranscriptReady(0, False, 66_000)) == []


def test_a_noise_that_goes_on_does_not_silence_us() -> None:
    """Without a word for confirm_timeout_ms the reply is resumed under it; words in it still end the reply."""
    machine = Machine(state=TurnState(agent=AgentState.REPLYING))
    machine.feed(SpeechStarted(16_000))
    machine.now += TIMEOUT_S - 0.1
    assert machine.feed(InterimReady(0, False)) == []
    machine.now += 0.2
    assert machine.feed(InterimReady(0, False)) == [ResumeReply()]
    assert machine.feed(InterimReady(0, False)) == []
    assert machine.feed(InterimReady(0, True)) == [CancelReply("turn_detected")]


def test_whoever_goes_on_after_a_noise_is_heard_whole() -> None:
    """Speech behind a soft end asks again for all of it."""
    machine = over_a_reply()
    machine.feed(TranscriptReady(0, False, 33_536))
    assert machine.feed(SpeechResumed(35_000)) == [CancelRevision(0)]
    assert machine.feed(SoftEnd(48_000, 49_536)) == [Transcribe(1, 16_000, 49_536, judge=True)]
    assert machine.feed(TranscriptReady(1, True, 50_000)) == [CancelReply("turn_detected")]


def test_a_commit_by_the_client_is_a_turn_whatever_was_said() -> None:
    """Its word is enough: the reply ends."""
    machine = over_a_reply()
    assert [type(command) for command in machine.feed(CommitRequested(40_000))] == [CancelReply, CommitTurn]


def test_audio_that_the_client_drops_interrupts_nothing() -> None:
    """input_audio_buffer.clear: the reply goes on."""
    assert over_a_reply().feed(ClearRequested(40_000)) == [CancelRevision(0), ResumeReply()]


@pytest.mark.parametrize("rules", [SEMANTIC, changed(SEMANTIC, interrupt_response=False)])
def test_an_echo_is_no_turn(rules: TurnRules) -> None:
    """Just behind a reply, and over one that may not be interrupted: dismissed, with nothing to resume."""
    behind = Machine(rules, TurnState(agent=AgentState.REPLYING))
    behind.feed(ReplyEnded())
    behind.now += 0.8
    assert behind.feed(SpeechStarted(16_000)) == [AnnounceSpeech(16_000)]
    behind.feed(SoftEnd(32_000, 33_536), TranscriptReady(0, False, 33_536))
    assert behind.feed(SilenceElapsed(0)) == [CancelRevision(0), DismissUtterance(32_000, 36_800)]
    if not rules.detection.interrupt_response:
        over = Machine(rules, TurnState(agent=AgentState.REPLYING))
        over.feed(SpeechStarted(16_000), SoftEnd(32_000, 33_536), TranscriptReady(0, False, 33_536))
        assert over.feed(SilenceElapsed(0)) == [CancelRevision(0), DismissUtterance(32_000, 36_800)]
        assert over.state.agent is AgentState.REPLYING


def test_a_caller_who_answers_later_is_not_doubted() -> None:
    """Behind the echo's tail a turn needs no words to be taken."""
    machine = Machine(state=TurnState(agent=AgentState.REPLYING))
    machine.feed(ReplyEnded())
    machine.now += 1.1
    machine.speak()
    assert [type(command) for command in machine.feed(VerdictReady(0, 1.0, 40_000))] == [CommitTurn, StartReply]


def test_a_dismissed_utterance_restarts_the_idle_timeout() -> None:
    """A silent caller whose room makes a noise is asked again all the same."""
    machine = Machine(IDLE, TurnState(agent=AgentState.REPLYING))
    machine.feed(ReplyEnded(), SpeechStarted(16_000), SoftEnd(32_000, 33_536), TranscriptReady(0, False, 33_536))
    assert machine.feed(SilenceElapsed(0))[-1] == StartIdleTimer(1, 106.0)


def test_final_at_once_is_still_to_be_had() -> None:
    """min_words 0: nothing is paused, nothing is doubted over a reply."""
    machine = Machine(replace(SEMANTIC, barge_in=BargeInSettings(min_words=0)), TurnState(agent=AgentState.REPLYING))
    assert machine.feed(SpeechStarted(16_000)) == [AnnounceSpeech(16_000), CancelReply("turn_detected")]
    assert [type(c) for c in machine.feed(SoftEnd(32_000, 33_536), VerdictReady(0, 1.0, 40_000))][-2:] == [
        CommitTurn,
        StartReply,
    ]


@given(all_rules, st.lists(st.tuples(events, st.floats(0, 3)), max_size=40))
def test_every_pause_has_one_end(rules: TurnRules, story: list[tuple[TurnEvent, float]]) -> None:
    """Whatever happens, a paused reply is resumed or cancelled once (unless it ends by itself), nothing else is, and a
    dismissed utterance is neither committed nor answered.
    """
    machine, paused, replying, dismissed = Machine(rules), False, False, set[int]()
    for event, seconds in story:
        machine.now += seconds
        before = machine.state.revision
        caused = machine.feed(event)
        if isinstance(event, ReplyEnded):
            replying = paused = False
        for command in caused:
            paused, replying = _follow(command, paused, replying)
        if any(isinstance(command, DismissUtterance) for command in caused):
            dismissed.add(before)
            assert not any(isinstance(command, CommitTurn | StartReply) for command in caused)
        committed = {command.revision for command in caused if isinstance(command, CommitTurn)}
        assert not committed & dismissed
        assert paused == (machine.state.agent is AgentState.PAUSED)
        assert not paused or machine.state.caller is not CallerState.QUIET
        assert machine.state.caller is not CallerState.QUIET or machine.state.claim is BargeInCheck.NOT_NEEDED


def _follow(command: Command, paused: bool, replying: bool) -> tuple[bool, bool]:
    """Whether a reply is paused, and whether there is one, after a command that is right then."""
    match command:
        case PauseReply():
            assert replying
            assert not paused
            return True, True
        case ResumeReply():
            assert paused
            return False, True
        case CancelReply():
            assert replying
            return False, False
        case StartReply():
            assert not paused
            return False, True
        case _:
            return paused, replying


@given(st.lists(st.tuples(events, st.floats(0, 3)), max_size=30))
def test_a_reply_that_may_be_interrupted_never_speaks_over_a_caller_unasked(
    story: list[tuple[TurnEvent, float]],
) -> None:
    """While somebody speaks, it speaks only if it was asked for meanwhile, or no word was heard for the time-out."""
    machine = Machine(SEMANTIC)
    asked, resumed_at = False, -1.0
    for event, seconds in story:
        machine.now += seconds
        caused = machine.feed(event)
        if isinstance(event, SpeechStarted | SpeechResumed | SoftEnd) and machine.state.caller is CallerState.QUIET:
            asked = False
        asked = (asked or isinstance(event, ReplyRequested)) and machine.state.agent is not AgentState.IDLE
        if ResumeReply() in caused:
            resumed_at = machine.now
            assert isinstance(event, InterimReady) <= (machine.now - machine.state.paused_at >= TIMEOUT_S)
        if machine.state.caller is CallerState.SPEAKING and machine.state.agent is AgentState.REPLYING and not asked:
            assert resumed_at >= machine.state.paused_at
