"""Tests of the scripted caller, which gets server events at given times on a simulated clock."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.callers.scripted_caller import LEAD_IN_S, LINGER_S, ScriptedBehavior, ScriptedLine, Truncate
from loadtest.results.turn_record import WATERFALL, ServerReport, stages_ms
from loadtest.scenario.microphone import FRAME_BYTES
from rejoinder.core.audio.pcm import WIRE_RATE
from rejoinder.core.wire.server import usage
from tests.loadtest.callers.scene import BEGAN, Scene, clip, report, silence, tone

# Time in seconds at which a first line of one second ends. Its last 20 ms frame is due 20 ms earlier.
LINE_ENDS = LEAD_IN_S + 1.0
LAST_FRAME = LINE_ENDS - 0.02


def _answered(scene: Scene, at: float = LINE_ENDS, item: str = "i1", response: str = "r1") -> None:
    """Let the server detect the line that ended at `at` as the utterance `item`, and reply 0.4 s later for 0.5 s."""
    scene.hears(at - 0.8, item)
    scene.commits(at + 0.2, item, "hello there")
    scene.replies(at + 0.4, response, "Good day.", tone(0.5))
    scene.done(at + 0.5, response, report(item, (at - 0.02) * 1000, silence=100, stt=200))


def test_the_microphone_never_stops() -> None:
    """The caller sends whole 20 ms frames without a gap: silence, the clip at its position, and silence again."""
    line = clip(seconds=1.0)
    scene = Scene(ScriptedLine(line))
    _answered(scene)
    scene.run(60)
    sent = bytes(scene.dialogue.microphone.sent)
    start = sent.index(line.pcm[:100])
    assert len(sent) % FRAME_BYTES == 0
    assert start == LEAD_IN_S * WIRE_RATE * 2
    assert sent[start : start + len(line.pcm)] == line.pcm
    assert not any(sent[:start])
    assert not any(sent[start + len(line.pcm) :])


def test_a_turn_is_measured_from_the_scheduled_last_sample_to_the_first_audible_one() -> None:
    """The latency starts at the deadline of the clip's last frame with speech, not at the end of its trailing silence.

    It ends when the reply's first audible sample is played, after the reply's leading silence.
    """
    scene = Scene(ScriptedLine(clip(seconds=1.0, after=0.4)))
    scene.hears(0.7, "i1")
    scene.commits(LINE_ENDS + 0.2, "i1", " hello ")
    scene.replies(LINE_ENDS + 0.4, "r1", "Good ", silence(0.1) + tone(0.5), tone(0.2))
    scene.done(LINE_ENDS + 0.5, "r1", report("i1", 1500))
    scene.dialogue.round_trip(0.004)
    scene.run(60)
    [record] = scene.dialogue.records()
    assert record.voice_to_voice_ms == pytest.approx((LINE_ENDS + 0.5 - LAST_FRAME) * 1000)
    assert (record.heard, record.answered, record.outcome) == ("hello", "Good", "answered")
    assert (record.rtt_ms, record.llm_total_ms, record.hedged) == (4.0, 321.0, True)
    assert record.engines == {"llm": "fake"}
    assert record.ok


@pytest.mark.parametrize(
    ("used", "recorded"),
    [(usage(100, 7, 64), (100, 64)), (usage(0, 0, 0), (None, None)), (None, (None, None))],
    ids=["reported", "no prompt", "not reported"],
)
def test_prompt_and_cached_tokens_are_recorded(used: Any, recorded: tuple[int | None, int | None]) -> None:
    """A turn's record has the prompt and cached tokens that the server reports for the reply.

    Both are None if the server reports no usage or a prompt of 0 tokens.
    """
    scene = Scene(ScriptedLine(clip(seconds=1.0)))
    scene.commits(LINE_ENDS + 0.2, "i1", "hello")
    scene.replies(LINE_ENDS + 0.4, "r1", "Good", tone(0.5))
    scene.done(LINE_ENDS + 0.5, "r1", report("i1", 1500), used=used)
    scene.run(60)
    [record] = scene.dialogue.records()
    assert (record.prompt_tokens, record.cached_tokens) == recorded


@given(
    speech_end_ms=st.floats(0, 5000),
    shares=st.lists(st.floats(0, 500), min_size=8, max_size=8),
    voice_to_voice_ms=st.floats(-500, 5000),
)
def test_the_waterfall_sums_to_the_whole(speech_end_ms: float, shares: list[float], voice_to_voice_ms: float) -> None:
    """For any server report, the stages are in pipeline order and sum to `voice_to_voice_ms` (to 0.1 ms)."""
    server = ServerReport.model_validate(report("i1", speech_end_ms, **dict(zip(WATERFALL, shares, strict=True))))
    total = round(voice_to_voice_ms, 1)
    divided = stages_ms(server, total, shift_ms=speech_end_ms - 2000)
    assert divided is not None
    assert tuple(divided) == WATERFALL
    assert sum(divided.values()) == pytest.approx(total, abs=0.001)


def test_a_late_end_of_speech_counts_as_silence() -> None:
    """If the server's end of speech is 60 ms late, 60 ms are added to the stage `silence`.

    `delivery` is the part of the latency that no other stage explains.
    """
    scene = Scene(ScriptedLine(clip(seconds=1.0)))
    scene.hears(0.7, "i1")
    scene.commits(LINE_ENDS + 0.2, "i1", "hello")
    scene.replies(LINE_ENDS + 0.4, "r1", "Good day.", tone(0.5))
    scene.done(
        LINE_ENDS + 0.5,
        "r1",
        report("i1", (LINE_ENDS + 0.06) * 1000, silence=96, stt=150, unattributed=1.5, delivery=3),
    )
    scene.run(60)
    [record] = scene.dialogue.records()
    assert record.voice_to_voice_ms == pytest.approx(420)
    assert record.stages_ms == pytest.approx(
        dict.fromkeys(WATERFALL, 0.0)
        | {"silence": 156.0, "stt": 150.0, "unattributed": 1.5, "delivery": 420 - 156 - 150 - 1.5}
    )


def test_the_next_line_starts_a_think_time_after_the_reply() -> None:
    """The caller speaks the next line a think time after the reply has been played, not after `response.done`."""
    scene = Scene(ScriptedLine(clip("a.wav")), ScriptedLine(clip("b.wav")), behavior=ScriptedBehavior(think_s=0.6))
    _answered(scene)
    playback_ends = LINE_ENDS + 0.4 + 0.5
    scene.run(playback_ends + 0.58)
    assert not any(scene.dialogue.microphone.sent[-FRAME_BYTES:])
    scene.run(playback_ends + 0.64)
    assert any(scene.dialogue.microphone.sent[-FRAME_BYTES:])


def test_a_barge_in_stops_the_reply_and_is_a_turn_of_its_own() -> None:
    """When the server detects an interruption, the caller stops playback and truncates the reply where it stopped.

    The first turn's `stop_ms` is the time since the interrupting speech began. The interruption is a separate turn.
    """
    scene = Scene(ScriptedLine(clip("a.wav")), ScriptedLine(clip("b.wav", before=0.1), barge_in_s=1.0))
    scene.hears(0.7, "i1")
    scene.commits(LINE_ENDS + 0.2, "i1", "tell me a story")
    began = LINE_ENDS + 0.4
    scene.replies(began, "r1", "Once upon a time.", tone(5.0))
    heard_at = began + 1.0 + 0.1 + 0.15
    command = scene.hears(heard_at, "i2")
    assert command == Truncate("said_r1", 1250)
    scene.done(heard_at + 0.02, "r1", report("i1", 1500) | {"interrupted": True}, status="cancelled")
    _answered(scene, at=began + 1.0 + 1.1, item="i2", response="r2")
    scene.run(60)
    cut, after = scene.dialogue.records()
    assert (cut.interrupted, cut.outcome, cut.stop_ms, cut.ok) == (True, "interrupted", 150.0, True)
    assert (after.interrupted, after.outcome, after.stop_ms, after.clip) == (False, "answered", None, "b.wav")
    played = sum(len(chunk.pcm) for chunk in scene.dialogue.replies[0].playback.heard()) / 2 / WIRE_RATE
    assert played == pytest.approx(1.25)
    assert cut.voice_to_voice_ms == pytest.approx(420)


def test_a_reply_that_is_resumed_was_not_interrupted() -> None:
    """If the server dismisses a noise during a reply and sends the rest again, the turn is not interrupted.

    The complete reply is played.
    """
    scene = Scene(ScriptedLine(clip("a.wav")), behavior=ScriptedBehavior(think_s=0.5))
    scene.hears(0.7, "i1")
    scene.commits(LINE_ENDS + 0.2, "i1", "tell me a story")
    began = LINE_ENDS + 0.4
    scene.replies(began, "r1", "Once upon a time.", tone(3.0))
    assert scene.hears(began + 1.0, "i2") == Truncate("said_r1", 1000)
    scene.event(began + 1.5, "input_audio_buffer.speech_stopped", item_id="i2", audio_end_ms=9000)
    scene.event(began + 1.5, "input_audio_buffer.cleared")
    where = {"response_id": "r1", "item_id": "said_r1", "output_index": 0, "content_index": 0}
    delta = base64.b64encode(tone(2.0)).decode()
    scene.event(began + 1.5, "response.output_audio.delta", delta=delta, **where)
    scene.done(began + 3.5, "r1", report("i1", 1500))
    scene.run(60)
    [record] = scene.dialogue.records()
    assert (record.outcome, record.interrupted, record.stop_ms) == ("answered", False, None)
    played = sum(len(chunk.pcm) for chunk in scene.dialogue.replies[0].playback.heard()) / 2 / WIRE_RATE
    assert played == pytest.approx(3.0)


def _interrupt(scene: Scene) -> float:
    """Interrupt the first reply with a second line that is answered, and do not report the first reply's end.

    Return the time at which the second reply has been played to its end.
    """
    scene.hears(0.7, "i1")
    scene.commits(LINE_ENDS + 0.2, "i1", "tell me a story")
    began = LINE_ENDS + 0.4
    scene.replies(began, "r1", "Once upon a time.", tone(5.0))
    second_ends = began + 1.0 + 1.0
    _answered(scene, at=second_ends, item="i2", response="r2")
    return second_ends + 0.4 + 0.5


def test_a_turn_is_not_closed_before_its_outcome_is_final() -> None:
    """A turn stays open until the end of the interrupted reply is reported. The record of a closed turn is final."""
    scene = Scene(ScriptedLine(clip("a.wav")), ScriptedLine(clip("b.wav"), barge_in_s=1.0))
    replied_at = _interrupt(scene)
    scene.run(replied_at + 0.5)
    assert scene.dialogue.closed == 0
    scene.done(replied_at + 0.5, "r1", report("i1", 1500) | {"interrupted": True}, status="cancelled")
    scene.run(replied_at + 0.6)
    assert scene.dialogue.closed == 2
    closed = scene.dialogue.records()
    scene.run(60)
    assert [record.outcome for record in closed] == ["interrupted", "answered"]
    assert scene.dialogue.records() == closed


def test_the_wait_for_an_outcome_has_the_timeout_of_an_answer() -> None:
    """The server never reports the end of an interrupted reply.

    The interrupted turn and the interrupting turn are then closed after the timeout.
    """
    scene = Scene(
        ScriptedLine(clip("a.wav")), ScriptedLine(clip("b.wav"), barge_in_s=1.0), behavior=ScriptedBehavior(timeout_s=5)
    )
    replied_at = _interrupt(scene)
    scene.run(replied_at + 4.9)
    assert scene.dialogue.closed == 0
    scene.run(replied_at + 5.1)
    assert scene.dialogue.closed == 2
    assert [record.outcome for record in scene.dialogue.records()] == ["interrupted", "answered"]


def test_the_conversation_continues_after_an_unanswered_turn() -> None:
    """After the timeout the turn has no answer and no latency. The next line is spoken and measured."""
    scene = Scene(
        ScriptedLine(clip("a.wav")), ScriptedLine(clip("b.wav")), behavior=ScriptedBehavior(think_s=0.6, timeout_s=5)
    )
    scene.hears(0.7, "i1")
    scene.commits(LINE_ENDS + 0.2, "i1", "anyone?")
    # The timeout is checked once per frame, so the line starts up to one frame late.
    second_ends = LAST_FRAME + 5 + 0.6 + 1.0
    _answered(scene, at=second_ends, item="i2", response="r2")
    scene.run(60)
    unanswered, answered = scene.dialogue.records()
    assert (unanswered.heard, unanswered.answered) == ("anyone?", "")
    assert (unanswered.voice_to_voice_ms, unanswered.stages_ms) == (None, None)
    assert (unanswered.outcome, unanswered.ok) == ("unanswered", False)
    assert answered.ok
    assert answered.heard == "hello there"


def test_a_reply_after_the_timeout_is_not_an_answer() -> None:
    """If the reply starts after the timeout, the turn stays unanswered, without text and latency."""
    scene = Scene(ScriptedLine(clip("a.wav")), behavior=ScriptedBehavior(timeout_s=5))
    scene.hears(0.7, "i1")
    scene.commits(LINE_ENDS + 0.2, "i1", "anyone?")
    scene.run(LAST_FRAME + 5.1)
    assert scene.dialogue.closed == 1
    scene.replies(LAST_FRAME + 5.15, "r1", "Here!", tone(0.5))
    scene.run(60)
    [record] = scene.dialogue.records()
    assert (record.outcome, record.answered, record.voice_to_voice_ms) == ("unanswered", "", None)


def test_a_reply_to_half_a_line_is_counted_but_not_measured() -> None:
    """If the server takes a pause for the end of a line, the turn is still the whole line. Its last reply counts."""
    scene = Scene(ScriptedLine(clip("a.wav", seconds=3.0)))
    scene.hears(0.7, "i1")
    scene.commits(1.5, "i1", "what time")
    scene.replies(1.7, "r1", "Pardon?", tone(2.0))
    assert scene.hears(2.0005, "i2") == Truncate("said_r1", 300)
    scene.done(2.05, "r1", report("i1", 1300) | {"interrupted": True}, status="cancelled")
    _answered(scene, at=LEAD_IN_S + 3.0, item="i3", response="r3")
    scene.run(60)
    [record] = scene.dialogue.records()
    assert (record.heard, record.answered) == ("what time hello there", "Good day.")
    assert (record.interrupted, record.premature_replies, record.stop_ms) == (False, 1, None)
    assert record.voice_to_voice_ms == pytest.approx(420)


def test_a_line_is_not_over_while_the_server_detects_speech() -> None:
    """A line stays open while the server detects its second half, even if the reply to its first half is complete.

    The line is closed after the reply to its second half.
    """
    scene = Scene(ScriptedLine(clip("a.wav", seconds=3.0)), ScriptedLine(clip("b.wav")))
    scene.hears(0.7, "i1")
    scene.commits(1.5, "i1", "what time")
    scene.replies(1.6, "r1", "Pardon?", tone(0.2))
    scene.done(1.7, "r1", report("i1", 1300))
    scene.hears(2.5, "i2")
    scene.run(LEAD_IN_S + 3.0 + 5.0)
    assert scene.dialogue.closed == 0
    _answered(scene, at=LEAD_IN_S + 3.0 + 5.0, item="i2", response="r2")
    scene.run(LEAD_IN_S + 3.0 + 6.5)
    assert scene.dialogue.closed == 1


def test_a_failed_response_is_not_an_answer() -> None:
    """If the server apologizes for a failure, the turn has failed and has no latency."""
    scene = Scene(ScriptedLine(clip()))
    scene.hears(0.7, "i1")
    scene.commits(LINE_ENDS + 0.2, "i1", "hello")
    scene.replies(LINE_ENDS + 0.4, "r1", "Sorry.", tone(0.5))
    scene.done(LINE_ENDS + 0.5, "r1", report("i1", 1500), status="failed")
    scene.run(60)
    [record] = scene.dialogue.records()
    assert (record.outcome, record.answered, record.voice_to_voice_ms, record.ok) == ("failed", "Sorry.", None, False)


def test_a_filler_is_not_the_answer() -> None:
    """With a filler after 400 ms and the answer after 1500 ms, the latency is that of the answer."""
    scene = Scene(ScriptedLine(clip()))
    scene.hears(0.7, "i1")
    scene.commits(LINE_ENDS + 0.2, "i1", "hello")
    scene.replies(LINE_ENDS + 0.4, "r1", "One moment. Good day.", tone(0.5))
    fields = {"response_id": "r1", "item_id": "said_r1", "output_index": 0, "content_index": 0}
    scene.event(LINE_ENDS + 1.5, "response.output_audio.delta", delta=base64.b64encode(tone(0.5)).decode(), **fields)
    scene.done(LINE_ENDS + 1.6, "r1", report("i1", 1500) | {"answer_from_ms": 500})
    scene.run(60)
    [record] = scene.dialogue.records()
    assert record.voice_to_voice_ms == pytest.approx(1520)


def test_a_response_that_answers_no_turn_leaves_the_turn_unanswered() -> None:
    """If the server reports that a response answers no utterance, the next response is the reply to the turn."""
    scene = Scene(ScriptedLine(clip()))
    scene.hears(0.7, "i1")
    scene.commits(LINE_ENDS + 0.2, "i1", "hello")
    scene.replies(LINE_ENDS + 0.3, "r0", "One moment.", tone(0.1))
    scene.done(LINE_ENDS + 0.4, "r0", {"interrupted": False})
    scene.replies(LINE_ENDS + 0.9, "r1", "Good day.", tone(0.5))
    scene.done(LINE_ENDS + 1.0, "r1", report("i1", 1500))
    scene.run(60)
    [record] = scene.dialogue.records()
    assert record.answered == "Good day."
    assert record.voice_to_voice_ms == pytest.approx(920)


def test_lines_that_were_not_reached_are_unanswered() -> None:
    """There is one record for each line in order, even if the connection was lost before."""
    scene = Scene(ScriptedLine(clip("a.wav")), ScriptedLine(clip("b.wav")))
    scene.hears(0.7, "i1")
    records = scene.dialogue.records(run=3)
    assert [(record.clip, record.outcome, record.run) for record in records] == [
        ("a.wav", "unanswered", 3),
        ("b.wav", "unanswered", 3),
    ]


def test_the_conversation_ends_a_moment_after_the_last_reply() -> None:
    """The conversation ends `LINGER_S` after the last reply."""
    scene = Scene(ScriptedLine(clip()))
    _answered(scene)
    scene.run(60)
    ended = scene.dialogue.microphone.due - BEGAN
    assert scene.dialogue.finished
    assert ended == pytest.approx(LINE_ENDS + 0.4 + 0.5 + LINGER_S, abs=0.021)


def test_server_errors_are_recorded_as_faults() -> None:
    """An error event or a malformed turn report of the server becomes a fault and does not end the conversation."""
    scene = Scene(ScriptedLine(clip()))
    scene.event(0.1, "error", error={"type": "invalid_request_error", "message": "no such item"})
    scene.hears(0.7, "i1")
    scene.commits(LINE_ENDS + 0.2, "i1", "hello")
    scene.replies(LINE_ENDS + 0.4, "r1", "Good day.", tone(0.5))
    scene.done(LINE_ENDS + 0.5, "r1", {"stages_ms": "none"})
    scene.run(60)
    [record] = scene.dialogue.records()
    assert scene.dialogue.faults == [
        "the server reports: no such item",
        "response.done: 1 errors in the rejoinder field",
    ]
    assert (record.outcome, record.stages_ms) == ("answered", None)
    assert record.voice_to_voice_ms == pytest.approx(420)
