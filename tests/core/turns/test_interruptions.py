"""Tests of speech during a reply in the turn machine: the reply is paused, and cancelled only if words were said.

An utterance that begins during a reply is checked: its transcript decides between words and noise. An utterance
without words is dismissed, and the reply resumes.
"""

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
    """Return a machine after one second of speech during a reply and a tentative end of that speech (SoftEnd)."""
    machine = Machine(rules, TurnState(agent=AgentState.REPLYING))
    assert machine.feed(SpeechStarted(16_000)) == [AnnounceSpeech(16_000), PauseReply()]
    assert machine.state.agent is AgentState.PAUSED
    machine.feed(SoftEnd(32_000, 33_536))
    return machine


def test_words_cancel_the_reply() -> None:
    """If the transcript has words, the paused reply is cancelled and a draft starts.

    The turn detector's verdict then ends the turn.
    """
    machine = over_a_reply(replace(SEMANTIC, drafts=True))
    assert machine.feed(TranscriptReady(0, True, 34_000)) == [CancelReply("turn_detected"), StartDraft(0)]
    assert [type(command) for command in machine.feed(VerdictReady(0, 1.0, 40_000))] == [CommitTurn, StartReply]


def test_noise_is_dismissed() -> None:
    """If the transcript has no words, the utterance is dismissed after a silence, and the reply resumes.

    The utterance makes no turn, and late results for it are ignored.
    """
    machine = over_a_reply()
    [wait] = machine.feed(TranscriptReady(0, False, 33_536))
    assert isinstance(wait, WaitUntil)
    assert wait.at == pytest.approx(100 + 0.3 - 0.096)
    end = 32_000 + 4_800
    assert machine.feed(SilenceElapsed(0)) == [CancelRevision(0), DismissUtterance(32_000, end), ResumeReply()]
    state = machine.state
    assert (state.agent, state.caller, state.revision, state.start) == (AgentState.REPLYING, CallerState.QUIET, 1, end)
    assert machine.feed(VerdictReady(0, 1.0, 40_000), SilenceElapsed(0), TranscriptReady(0, True, 40_000)) == []


def test_a_click_is_not_transcribed() -> None:
    """A sound shorter than `min_speech_ms` is not transcribed, but dismissed after a silence; the reply resumes."""
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
    """Speech soon after a very short sound belongs to the same utterance, which is transcribed from that sound on.

    A client's commit takes the audio from that sound on too.
    """
    machine = Machine(state=TurnState(agent=AgentState.REPLYING))
    machine.feed(SpeechStarted(16_000), SoftEnd(17_024, 18_048))
    assert machine.feed(SpeechResumed(19_000)) == [CancelRevision(0)]
    assert machine.feed(SoftEnd(32_000, 33_536)) == [Transcribe(1, 16_000, 33_536, detect_end_of_turn=True)]
    machine = Machine(state=TurnState(agent=AgentState.REPLYING))
    machine.feed(SpeechStarted(16_000), SoftEnd(17_024, 18_048))
    [_, turn] = machine.feed(CommitRequested(20_000))
    assert turn == CommitTurn(0, 16_000, 20_000, 20_000, transcript_requested=False)


def test_silence_does_not_end_a_turn_before_its_transcript() -> None:
    """The turn of a checked utterance does not end before its transcript, also with server_vad.

    If the silence has passed by then and the transcript has words, the turn ends at once.
    """
    machine = over_a_reply(SERVER)
    [wait] = machine.feed(SilenceElapsed(0))
    assert wait == WaitUntil(0, 100 + TIMEOUT_S)
    assert machine.state.barge_in_check is BargeInCheck.OVERDUE
    assert machine.feed(AudioProcessed(60_000)) == []
    assert [type(c) for c in machine.feed(TranscriptReady(0, True, 60_000))] == [CancelReply, CommitTurn, StartReply]


def overdue() -> Machine:
    """Return a machine that has resumed the reply because the transcript took longer than `confirm_timeout_ms`."""
    machine = over_a_reply()
    machine.feed(VerdictReady(0, 1.0, 40_000))
    machine.now += TIMEOUT_S
    assert machine.feed(SilenceElapsed(0)) == [ResumeReply()]
    return machine


def test_an_overdue_transcript_resumes_the_reply_once() -> None:
    """If the transcript is overdue, the reply resumes once, and the utterance is neither committed nor dismissed."""
    machine = overdue()
    assert machine.feed(AudioProcessed(60_000), SilenceElapsed(0)) == []
    assert (machine.state.caller, machine.state.barge_in_check) == (CallerState.ENDPOINTING, BargeInCheck.OVERDUE)


def test_late_words_are_a_turn() -> None:
    """A transcript with words that comes after `confirm_timeout_ms` ends the turn.

    It also cancels the resumed reply, if that has not ended yet.
    """
    assert [type(c) for c in overdue().feed(TranscriptReady(0, True, 90_000))] == [CancelReply, CommitTurn, StartReply]
    machine = overdue()
    machine.feed(ReplyEnded())
    assert [type(c) for c in machine.feed(TranscriptReady(0, True, 90_000))] == [CommitTurn, StartReply]


def test_late_noise_is_dismissed() -> None:
    """An overdue transcript without words dismisses the utterance; the reply is already playing."""
    assert [type(c) for c in overdue().feed(TranscriptReady(0, False, 90_000))] == [CancelRevision, DismissUtterance]


def test_speech_over_a_resumed_reply_pauses_it_again() -> None:
    """If the caller continues after the reply resumed, it is paused again, and the whole utterance is transcribed."""
    machine = overdue()
    assert machine.feed(SpeechResumed(100_000)) == [CancelRevision(0), PauseReply()]
    assert machine.feed(SoftEnd(120_000, 121_536)) == [Transcribe(1, 16_000, 121_536, detect_end_of_turn=True)]
    assert machine.feed(TranscriptReady(1, True, 122_000)) == [CancelReply("turn_detected")]


def test_an_interim_transcript_cancels_the_reply() -> None:
    """An interim transcript with words cancels the reply at once, also if the final transcript has no words."""
    machine = Machine(state=TurnState(agent=AgentState.REPLYING))
    machine.feed(SpeechStarted(16_000))
    assert machine.feed(InterimReady(0, False)) == []
    assert machine.feed(InterimReady(0, True)) == [CancelReply("turn_detected")]
    assert machine.feed(SoftEnd(64_000, 65_536)) == [Transcribe(0, 16_000, 65_536, detect_end_of_turn=True)]
    assert machine.feed(TranscriptReady(0, False, 66_000)) == []


def test_lasting_noise_resumes_the_reply() -> None:
    """If sound lasts for `confirm_timeout_ms` without words, the reply resumes. Later words still cancel the reply."""
    machine = Machine(state=TurnState(agent=AgentState.REPLYING))
    machine.feed(SpeechStarted(16_000))
    machine.now += TIMEOUT_S - 0.1
    assert machine.feed(InterimReady(0, False)) == []
    machine.now += 0.2
    assert machine.feed(InterimReady(0, False)) == [ResumeReply()]
    assert machine.feed(InterimReady(0, False)) == []
    assert machine.feed(InterimReady(0, True)) == [CancelReply("turn_detected")]


def test_speech_after_noise_is_transcribed_with_it() -> None:
    """Speech that follows a noise before its dismissal is transcribed together with the noise."""
    machine = over_a_reply()
    machine.feed(TranscriptReady(0, False, 33_536))
    assert machine.feed(SpeechResumed(35_000)) == [CancelRevision(0)]
    assert machine.feed(SoftEnd(48_000, 49_536)) == [Transcribe(1, 16_000, 49_536, detect_end_of_turn=True)]
    assert machine.feed(TranscriptReady(1, True, 50_000)) == [CancelReply("turn_detected")]


def test_a_commit_by_the_client_cancels_the_reply() -> None:
    """If the client commits the utterance, the reply is cancelled without waiting for the transcript."""
    machine = over_a_reply()
    assert [type(command) for command in machine.feed(CommitRequested(40_000))] == [CancelReply, CommitTurn]


def test_cleared_audio_does_not_interrupt() -> None:
    """The client event input_audio_buffer.clear drops the utterance and resumes the paused reply."""
    assert over_a_reply().feed(ClearRequested(40_000)) == [CancelRevision(0), ResumeReply()]


@pytest.mark.parametrize("rules", [SEMANTIC, changed(SEMANTIC, interrupt_response=False)])
def test_an_echo_is_dismissed(rules: TurnRules) -> None:
    """Sound without words just after a reply is checked and dismissed, because it may be the reply's echo.

    Sound during a reply that cannot be interrupted is dismissed too, and that reply is never paused.
    """
    after = Machine(rules, TurnState(agent=AgentState.REPLYING))
    after.feed(ReplyEnded())
    after.now += 0.8
    assert after.feed(SpeechStarted(16_000)) == [AnnounceSpeech(16_000)]
    after.feed(SoftEnd(32_000, 33_536), TranscriptReady(0, False, 33_536))
    assert after.feed(SilenceElapsed(0)) == [CancelRevision(0), DismissUtterance(32_000, 36_800)]
    if not rules.detection.interrupt_response:
        over = Machine(rules, TurnState(agent=AgentState.REPLYING))
        over.feed(SpeechStarted(16_000), SoftEnd(32_000, 33_536), TranscriptReady(0, False, 33_536))
        assert over.feed(SilenceElapsed(0)) == [CancelRevision(0), DismissUtterance(32_000, 36_800)]
        assert over.state.agent is AgentState.REPLYING


def test_speech_after_the_echo_tail_is_not_checked() -> None:
    """Speech later than `echo_tail_ms` after a reply becomes a turn without waiting for its transcript."""
    machine = Machine(state=TurnState(agent=AgentState.REPLYING))
    machine.feed(ReplyEnded())
    machine.now += 1.1
    machine.speak()
    assert [type(command) for command in machine.feed(VerdictReady(0, 1.0, 40_000))] == [CommitTurn, StartReply]


def test_a_dismissed_utterance_restarts_the_idle_timeout() -> None:
    """A dismissed utterance restarts the idle timeout, so noise does not keep the agent from asking again."""
    machine = Machine(IDLE, TurnState(agent=AgentState.REPLYING))
    machine.feed(ReplyEnded(), SpeechStarted(16_000), SoftEnd(32_000, 33_536), TranscriptReady(0, False, 33_536))
    assert machine.feed(SilenceElapsed(0))[-1] == StartIdleTimer(1, 106.0)


def test_min_words_zero_cancels_at_once() -> None:
    """With min_words=0, the first sound cancels the reply, and the utterance is not checked."""
    machine = Machine(replace(SEMANTIC, barge_in=BargeInSettings(min_words=0)), TurnState(agent=AgentState.REPLYING))
    assert machine.feed(SpeechStarted(16_000)) == [AnnounceSpeech(16_000), CancelReply("turn_detected")]
    assert [type(c) for c in machine.feed(SoftEnd(32_000, 33_536), VerdictReady(0, 1.0, 40_000))][-2:] == [
        CommitTurn,
        StartReply,
    ]


@given(all_rules, st.lists(st.tuples(events, st.floats(0, 3)), max_size=40))
def test_every_pause_has_one_end(rules: TurnRules, story: list[tuple[TurnEvent, float]]) -> None:
    """For any order of events, a paused reply is resumed or cancelled exactly once, unless it ends first.

    A dismissed utterance is neither committed nor answered.
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
        assert machine.state.caller is not CallerState.QUIET or machine.state.barge_in_check is BargeInCheck.NOT_NEEDED


def _follow(command: Command, paused: bool, replying: bool) -> tuple[bool, bool]:
    """Return (reply is paused, reply has started and not ended), both after a command.

    The arguments are the same two facts before the command. An assertion fails if the command contradicts them.
    """
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
def test_an_interruptible_reply_does_not_play_over_speech(
    story: list[tuple[TurnEvent, float]],
) -> None:
    """A reply plays during speech only if the client requested it, or if `confirm_timeout_ms` passed without words."""
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
            assert isinstance(event, InterimReady) <= (machine.now - machine.state.reply_paused_at >= TIMEOUT_S)
        if machine.state.caller is CallerState.SPEAKING and machine.state.agent is AgentState.REPLYING and not asked:
            assert resumed_at >= machine.state.reply_paused_at
