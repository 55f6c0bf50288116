"""The caller's side of a conversation, as lists of events with their times."""

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

# A one-second line ends here; its last sample leaves with the frame of 20 ms before.
LINE_ENDS = LEAD_IN_S + 1.0
LAST_FRAME = LINE_ENDS - 0.02


def _answered(scene: Scene, at: float = LINE_ENDS, item: str = "i1", response: str = "r1") -> None:
    """The server hears the line that ended at `at`, and replies 0.4 s later with half a second of audio."""
    scene.hears(at - 0.8, item)
    scene.commits(at + 0.2, item, "hello there")
    scene.replies(at + 0.4, response, "Good day.", tone(0.5))
    scene.done(at + 0.5, response, report(item, (at - 0.02) * 1000, silence=100, stt=200))


def test_the_microphone_never_stops() -> None:
    """Every frame of the stream is 20 ms, silent around the clip and the clip itself where it is spoken."""
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
    """Leading silence of the reply, and the moment of its playback, both count; trailing silence of the clip not."""
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
    ("used", "told"),
    [(usage(100, 7, 64), (100, 64)), (usage(0, 0, 0), (None, None)), (None, (None, None))],
    ids=["known", "no prompt", "not told"],
)
def test_the_prompt_is_told_with_what_was_known_of_it(used: Any, told: tuple[int | None, int | None]) -> None:
    """Tokens of the prompt and of its cached part are the server's usage; an answer without a prompt has none."""
    scene = Scene(ScriptedLine(clip(seconds=1.0)))
    scene.commits(LINE_ENDS + 0.2, "i1", "hello")
    scene.replies(LINE_ENDS + 0.4, "r1", "Good", tone(0.5))
    scene.done(LINE_ENDS + 0.5, "r1", report("i1", 1500), used=used)
    scene.run(60)
    [record] = scene.dialogue.records()
    assert (record.prompt_tokens, record.cached_tokens) == told


@given(
    speech_end_ms=st.floats(0, 5000),
    shares=st.lists(st.floats(0, 500), min_size=8, max_size=8),
    voice_to_voice_ms=st.floats(-500, 5000),
)
def test_the_waterfall_sums_to_the_whole(speech_end_ms: float, shares: list[float], voice_to_voice_ms: float) -> None:
    """Whatever the server reports, the stages come in order and sum to voice_to_voice_ms, to the 0.1 ms printed."""
    server = ServerReport.model_validate(report("i1", speech_end_ms, **dict(zip(WATERFALL, shares, strict=True))))
    total = round(voice_to_voice_ms, 1)
    divided = stages_ms(server, total, shift_ms=speech_end_ms - 2000)
    assert divided is not None
    assert tuple(divided) == WATERFALL
    assert sum(divided.values()) == pytest.approx(total, abs=0.001)


def test_a_late_end_of_speech_counts_as_silence_and_the_rest_as_delivery() -> None:
    """If voice activity ends 60 ms of stream late, silence grows by it; delivery is what no stage explains."""
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


def test_the_next_line_waits_for_the_end_of_the_reply_and_a_thought() -> None:
    """Not response.done but the end of the playback starts the think time."""
    scene = Scene(ScriptedLine(clip("a.wav")), ScriptedLine(clip("b.wav")), behavior=ScriptedBehavior(think_s=0.6))
    _answered(scene)
    playback_ends = LINE_ENDS + 0.4 + 0.5
    scene.run(playback_ends + 0.58)
    assert not any(scene.dialogue.microphone.sent[-FRAME_BYTES:])
    scene.run(playback_ends + 0.64)
    assert any(scene.dialogue.microphone.sent[-FRAME_BYTES:])


def test_a_barge_in_silences_the_reply_and_is_a_turn_of_its_own() -> None:
    """The playback is flushed at speech_started, the server told what was played, and stop_ms is the time it took."""
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
    """A noise: the playback is flushed and goes on with what is sent again; the noise belongs to no line."""
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


def _cuts_in(scene: Scene) -> float:
    """A second line over the reply to the first, heard and answered, while the first reply's end is not reported.

    Returns when the second reply has been heard to its end.
    """
    scene.hears(0.7, "i1")
    scene.commits(LINE_ENDS + 0.2, "i1", "tell me a story")
    began = LINE_ENDS + 0.4
    scene.replies(began, "r1", "Once upon a time.", tone(5.0))
    second_ends = began + 1.0 + 1.0
    _answered(scene, at=second_ends, item="i2", response="r2")
    return second_ends + 0.4 + 0.5


def test_a_turn_is_not_closed_before_its_outcome_is_known() -> None:
    """A closed turn's record is final, however late the end of the reply that was cut is reported."""
    scene = Scene(ScriptedLine(clip("a.wav")), ScriptedLine(clip("b.wav"), barge_in_s=1.0))
    heard_out = _cuts_in(scene)
    scene.run(heard_out + 0.5)
    assert scene.dialogue.closed == 0
    scene.done(heard_out + 0.5, "r1", report("i1", 1500) | {"interrupted": True}, status="cancelled")
    scene.run(heard_out + 0.6)
    assert scene.dialogue.closed == 2
    shown = scene.dialogue.records()
    scene.run(60)
    assert [record.outcome for record in shown] == ["interrupted", "answered"]
    assert scene.dialogue.records() == shown


def test_an_outcome_that_never_comes_is_waited_for_no_longer_than_an_answer() -> None:
    """The server never reports the end of the cut reply: after the timeout both turns are closed as they are."""
    scene = Scene(
        ScriptedLine(clip("a.wav")), ScriptedLine(clip("b.wav"), barge_in_s=1.0), behavior=ScriptedBehavior(timeout_s=5)
    )
    heard_out = _cuts_in(scene)
    scene.run(heard_out + 4.9)
    assert scene.dialogue.closed == 0
    scene.run(heard_out + 5.1)
    assert scene.dialogue.closed == 2
    assert [record.outcome for record in scene.dialogue.records()] == ["interrupted", "answered"]


def test_an_unanswered_turn_is_given_up_and_the_conversation_goes_on() -> None:
    """After the timeout the turn has no answer and no time, and the next line is spoken and measured."""
    scene = Scene(
        ScriptedLine(clip("a.wav")), ScriptedLine(clip("b.wav")), behavior=ScriptedBehavior(think_s=0.6, timeout_s=5)
    )
    scene.hears(0.7, "i1")
    scene.commits(LINE_ENDS + 0.2, "i1", "anyone?")
    # The clock asks with every frame, so the line begins one frame after it may.
    second_ends = LAST_FRAME + 5 + 0.6 + 1.0
    _answered(scene, at=second_ends, item="i2", response="r2")
    scene.run(60)
    lost, answered = scene.dialogue.records()
    assert (lost.heard, lost.answered, lost.voice_to_voice_ms, lost.stages_ms) == ("anyone?", "", None, None)
    assert (lost.outcome, lost.ok) == ("unanswered", False)
    assert answered.ok
    assert answered.heard == "hello there"


def test_a_reply_after_the_caller_gave_up_is_not_an_answer() -> None:
    """What comes after the timeout does not turn an unanswered turn into a slow one."""
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
    """The server takes a pause for the end: the turn is the whole line, its reply the one to its last utterance."""
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


def test_a_line_is_not_over_while_the_server_still_hears_it() -> None:
    """A completed reply to the first half does not start the next line before the second half is answered."""
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


def test_a_failed_response_is_no_answer() -> None:
    """An apology is heard, but the turn has failed and gives no time to any statistic."""
    scene = Scene(ScriptedLine(clip()))
    scene.hears(0.7, "i1")
    scene.commits(LINE_ENDS + 0.2, "i1", "hello")
    scene.replies(LINE_ENDS + 0.4, "r1", "Sorry.", tone(0.5))
    scene.done(LINE_ENDS + 0.5, "r1", report("i1", 1500), status="failed")
    scene.run(60)
    [record] = scene.dialogue.records()
    assert (record.outcome, record.answered, record.voice_to_voice_ms, record.ok) == ("failed", "Sorry.", None, False)


def test_a_filler_is_not_the_answer() -> None:
    """It is heard 400 ms after the line, the answer behind it 1500 ms: that is what the caller waited."""
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
    """An apology of its own, reported without an item, is not taken for the reply; the reply that follows is."""
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


def test_lines_that_were_never_reached_are_reported_unanswered() -> None:
    """When the connection is lost there is still one record a line, in order."""
    scene = Scene(ScriptedLine(clip("a.wav")), ScriptedLine(clip("b.wav")))
    scene.hears(0.7, "i1")
    records = scene.dialogue.records(run=3)
    assert [(record.clip, record.outcome, record.run) for record in records] == [
        ("a.wav", "unanswered", 3),
        ("b.wav", "unanswered", 3),
    ]


def test_the_conversation_ends_a_moment_after_the_last_reply() -> None:
    """It lingers for what is still on its way, then no further frame is due."""
    scene = Scene(ScriptedLine(clip()))
    _answered(scene)
    scene.run(60)
    ended = scene.dialogue.microphone.due - BEGAN
    assert scene.dialogue.finished
    assert ended == pytest.approx(LINE_ENDS + 0.4 + 0.5 + LINGER_S, abs=0.021)


def test_what_the_server_complains_about_is_kept() -> None:
    """Errors, failed transcriptions and a report of the wrong shape become faults; none ends the conversation."""
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
