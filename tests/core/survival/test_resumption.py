"""Tests of what goes on after a resume: which words were heard, and what is said next."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoinder.core.audio.pcm import WIRE_RATE
from rejoinder.core.reply.playout import CHARACTERS_PER_S, Playout
from rejoinder.core.reply.spoken.units import SpeechSegment, SpokenUnit
from rejoinder.core.survival.resumption import HeardReport, KnownAnswer, resume
from rejoinder.core.survival.snapshot import SLACK_MS, LastReply, SessionSnapshot, SpokenProgress
from rejoinder.core.wire.items import Item
from rejoinder.core.wire.session import SessionConfig

texts = st.lists(st.text("abcdef", min_size=1, max_size=9), min_size=1, max_size=8).map(" ".join)
segments = st.lists(st.tuples(texts, st.integers(1000, 2 * WIRE_RATE)), min_size=1, max_size=5)

QUESTION = Item("q", spoken=True, text="Why?")
ANSWER = Item("a", role="assistant", spoken=True, text="", status="in_progress")
PROGRESS = SpokenProgress("One two three.", ((3, 500), (7, 1000), (14, 1500)), heard_ms=600, sent_ms=1200)


def snapshot(*items: Item, reply: LastReply | None = None) -> SessionSnapshot:
    return SessionSnapshot("k", 0, SessionConfig(), items, started_at=0.0, reply=reply)


@given(segments, st.integers(0, 12_000))
def test_the_words_heard_are_those_that_the_host_would_have_counted(
    parts: list[tuple[str, int]], played_ms: int
) -> None:
    """A stored timeline gives the same words as the host's own estimate, at each position outside the tolerance."""
    playout = Playout(0.32)
    for text, samples in parts:
        playout.begin(SpeechSegment.verbatim(text))
        playout.add(samples)
    playout.end()
    line = playout.timeline()
    progress = SpokenProgress(line.text, tuple(line.marks))
    assert line.text == " ".join(text for text, _ in parts)
    # The marks are rounded to whole milliseconds, so positions within 1 ms of a mark are not compared.
    if all(abs(end_ms - played_ms) > 1 for _, end_ms in line.marks):
        assert progress.heard(played_ms - SLACK_MS) == playout.heard_text(played_ms / 1000)


def test_segments_that_are_to_come_are_estimated() -> None:
    """A segment without audio follows the ones before, at the speaking rate, so a report may reach into it."""
    playout = Playout(0.32)
    playout.begin(SpeechSegment.verbatim("one"))
    playout.add(WIRE_RATE)
    playout.end()
    line = playout.timeline([SpeechSegment.verbatim("two three")])
    assert line.text == "one two three"
    assert line.marks == [
        (3, 1000),
        (7, round(1000 + 4000 / CHARACTERS_PER_S)),
        (13, round(1000 + 10_000 / CHARACTERS_PER_S)),
    ]


def test_words_without_sound_count_with_their_neighbours() -> None:
    """An emoji in the middle counts with the next spoken word, one at the end of a segment with the word before."""
    playout = Playout(0.32)
    playout.begin(SpeechSegment((SpokenUnit("🎉", ""), SpokenUnit("Hi", "Hi"), SpokenUnit("🙂", ""))))
    playout.add(WIRE_RATE)
    playout.end()
    progress = SpokenProgress(playout.timeline().text, tuple(playout.timeline().marks))
    assert progress.heard(900) == ""
    assert progress.heard(1000) == "🎉 Hi 🙂"


@pytest.mark.parametrize(
    ("report", "heard"),
    [
        (HeardReport("a", 0), ""),
        (HeardReport("a", 1000 - SLACK_MS), "One two"),
        (HeardReport("a", 999 - SLACK_MS), "One"),
        (HeardReport("a", 9000), "One two three."),
        (HeardReport("q", 700), ""),
        (HeardReport("unknown", 700), "One"),
        (None, "One"),
    ],
)
def test_the_report_decides_what_was_heard(report: HeardReport | None, heard: str) -> None:
    """The client reports of which item it has audio. If that is one before the reply, nothing of the reply was heard.

    If there is no report, or the item is unknown, the snapshot's own estimate of the heard words counts.
    """
    found = resume(snapshot(QUESTION, ANSWER, reply=LastReply(item_id="a", progress=PROGRESS)), report)
    assert [item.text for item in found.items] == ["Why?", *([heard] if heard else [])]
    assert found.known
    assert f"{heard} {found.known.unheard}".strip() == found.known.prefix == "One two three."
    assert found.kind == ("continued" if heard else "answered")
    assert found.continues_item_id == ("a" if heard else None)
    assert found.audio_after_item_id == "q"


def test_a_complete_answer_needs_no_language_model() -> None:
    """If the generation had ended, only the known rest is said; if all was heard, nothing is."""
    complete = SpokenProgress(PROGRESS.text, PROGRESS.marks, complete=True)
    reply = LastReply(item_id="a", progress=complete)
    found = resume(snapshot(QUESTION, ANSWER, reply=reply), HeardReport("a", 600))
    assert found.known == KnownAnswer("One two three.", "two three.", complete=True, heard="One", items=("a",))
    done = resume(snapshot(QUESTION, ANSWER, reply=reply), HeardReport("a", 1500))
    assert (done.kind, done.items[-1].text, done.items[-1].status) == (None, "One two three.", "completed")


def test_a_later_question_is_answered_instead() -> None:
    """If the caller has asked again after the answer that was cut off, the new question is answered."""
    later = Item("q2", text="And now?")
    found = resume(snapshot(QUESTION, ANSWER, later, reply=LastReply(item_id="a", progress=PROGRESS)), None)
    assert [item.text for item in found.items] == ["Why?", "One", "And now?"]
    assert (found.kind, found.known) == ("answered", None)
    ended = LastReply(item_id="a", progress=PROGRESS, ended=True)
    assert resume(snapshot(QUESTION, ANSWER, later, reply=ended), HeardReport("a", 0)).kind is None


def test_a_deleted_answer_is_not_continued() -> None:
    """If the client has deleted the item of the answer, nothing of it is said again."""
    found = resume(snapshot(QUESTION, reply=LastReply(item_id="a", progress=PROGRESS)), None)
    assert (found.kind, found.items) == (None, (QUESTION,))
