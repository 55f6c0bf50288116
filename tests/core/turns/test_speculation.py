"""Tests of drafts (speculative replies) in the turn machine: when they start, and when they are used or discarded."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoinder.core.turns.commands import (
    AnnounceSpeech,
    CancelRevision,
    CommitTurn,
    DiscardDraft,
    StartDraft,
    StartReply,
    Transcribe,
)
from rejoinder.core.turns.events import CommitRequested, TurnEvent, VerdictReady
from rejoinder.core.turns.speech_detector import SoftEnd, SpeechResumed
from rejoinder.core.turns.state import AgentState, TurnRules, TurnState
from tests.core.turns.test_machine import SEMANTIC, Machine, all_rules, changed, events

DRAFTING = replace(SEMANTIC, drafts=True)


def test_a_reply_is_drafted_at_the_soft_end_and_released_with_the_commit() -> None:
    """A draft starts at the tentative end of speech, after the transcript was requested.

    It becomes the reply at the end of turn.
    """
    machine = Machine(DRAFTING)
    assert [type(command) for command in machine.speak()] == [AnnounceSpeech, Transcribe, StartDraft]
    commits = machine.feed(VerdictReady(0, 1.0, 33_600))
    assert commits[1:] == [StartReply(0)]


def test_resumed_speech_cancels_the_draft() -> None:
    """Speech that resumes cancels the draft. The next tentative end starts a draft for the whole utterance."""
    machine = Machine(DRAFTING)
    machine.speak()
    assert machine.feed(SpeechResumed(40_000)) == [CancelRevision(0)]
    assert machine.feed(SoftEnd(48_000, 49_536)) == [
        Transcribe(1, 16_000, 49_536, detect_end_of_turn=True),
        StartDraft(1),
    ]


@pytest.mark.parametrize(
    ("rules", "state"),
    [
        (changed(DRAFTING, create_response=False), TurnState()),
        (changed(DRAFTING, interrupt_response=False), TurnState(agent=AgentState.REPLYING)),
    ],
)
def test_nothing_is_drafted_for_a_turn_that_would_not_be_answered_at_once(rules: TurnRules, state: TurnState) -> None:
    """No draft starts if the turn would not be answered at its end.

    That is so with create_response=false and during a reply that cannot be interrupted.
    """
    assert not any(isinstance(command, StartDraft) for command in Machine(rules, state).speak())


def test_a_turn_that_the_client_commits_discards_its_draft() -> None:
    """A turn that the client commits is not answered, so its draft is discarded."""
    machine = Machine(DRAFTING)
    machine.speak()
    assert [type(command) for command in machine.feed(CommitRequested(40_000))] == [CommitTurn, DiscardDraft]


@given(all_rules, st.lists(events, max_size=40))
def test_a_draft_is_released_only_for_its_own_audio(rules: TurnRules, story: list[TurnEvent]) -> None:
    """For any order of events, there is at most one draft at a time, and it is used or discarded once.

    A draft is used only if it was started for all audio of the turn.
    """
    machine = Machine(rules)
    heard: Transcribe | None = None
    draft: int | None = None
    turn: CommitTurn | None = None
    for event in story:
        for command in machine.feed(event):
            match command:
                case Transcribe():
                    heard = command
                case StartDraft(revision):
                    assert draft is None
                    assert heard is not None
                    assert revision == heard.revision
                    draft = revision
                case CancelRevision(revision) | DiscardDraft(revision):
                    assert draft in (None, revision)
                    draft = None
                case CommitTurn():
                    turn = command
                case StartReply(revision) if revision is not None:
                    assert turn is not None
                    assert heard is not None
                    assert revision == turn.revision == heard.revision
                    # The draft's transcript covers the turn from its first sample to its last speech.
                    assert heard.start == turn.start
                    assert turn.transcript_requested
                    draft = None
        # When the revision increases, its draft must have been used or discarded.
        assert draft is None or draft == machine.state.revision
