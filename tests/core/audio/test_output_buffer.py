"""Tests of the output buffer of a call whose audio the server plays: pacing, events and barge-in."""

from __future__ import annotations

import pytest

from rejoinder.core.audio.output_buffer import FRAME_BYTES, FRAME_S, TAIL_FRAMES, OutputBuffer, OutputFrame

FRAME = b"\x01\x00" * (FRAME_BYTES // 2)


def buffer(max_s: float = 10.0, *, continuous: bool = False) -> tuple[OutputBuffer, list[tuple[str, str]]]:
    """Return a buffer and the list to which it adds each (change, id of the response)."""
    changes: list[tuple[str, str]] = []
    return OutputBuffer(max_s, lambda change, name: changes.append((change, name)), continuous=continuous), changes


def run(output: OutputBuffer, start: float, seconds: float) -> list[OutputFrame]:
    """Return all frames that are due from `start` on, for some seconds."""
    frames = []
    for step in range(round(seconds / FRAME_S) * 2):
        frame = output.take(start + step * FRAME_S / 2)
        if frame:
            frames.append(frame)
    return frames


def test_frames_leave_in_real_time_and_a_tail_of_silence_follows() -> None:
    """Three frames that are added at once leave 20 ms apart. Then come the silent tail, and nothing more."""
    output, changes = buffer()
    assert output.wait_s(0.0) is None
    output.add("a", FRAME * 3)
    output.end("a")
    assert output.take(5.0) == OutputFrame(FRAME, 0, silent=False)
    assert output.take(5.01) is None
    assert output.wait_s(5.01) == pytest.approx(0.01)
    frames = run(output, 5.02, 2.0)
    assert [frame.silent for frame in frames] == [False] * 2 + [True] * (TAIL_FRAMES - 1) + [True]
    assert changes == [("started", "a"), ("stopped", "a")]
    assert output.wait_s(9.0) is None


def test_the_number_of_a_frame_tells_the_time_that_has_passed() -> None:
    """After a pause of 10 s without any frame, the numbers go on as if frames had been sent."""
    output, _ = buffer()
    output.add("a", FRAME)
    output.end("a")
    run(output, 0.0, 1.0)
    output.add("b", FRAME)
    frame = output.take(11.0)
    assert frame is not None
    assert frame.number == 550


def test_clearing_drops_what_was_not_sent() -> None:
    """Of 10 frames 4 were sent: the samples of 6 are dropped, the response is cleared, and silence follows."""
    output, changes = buffer()
    output.add("a", FRAME * 10)
    sent = run(output, 0.0, 0.08)
    assert output.clear("a") == (10 - len(sent)) * FRAME_BYTES // 2
    assert changes == [("started", "a"), ("cleared", "a")]
    assert all(frame.silent for frame in run(output, 0.08, 0.2))
    assert output.clear() == 0


def test_a_response_that_is_not_being_played_is_dropped_without_an_event() -> None:
    """Clearing the second of two responses leaves the first one as it is."""
    output, changes = buffer()
    output.add("a", FRAME * 2)
    output.add("b", FRAME * 2)
    output.take(0.0)
    assert output.clear("b") == FRAME_BYTES
    output.end("a")
    run(output, 0.02, 0.1)
    assert changes == [("started", "a"), ("stopped", "a")]


def test_responses_are_played_one_after_another() -> None:
    """The next response starts when the one before has no more audio, even if its end was not announced."""
    output, changes = buffer()
    output.add("a", FRAME)
    output.add("b", FRAME)
    output.end("b")
    run(output, 0.0, 0.2)
    assert changes == [("started", "a"), ("stopped", "a"), ("started", "b"), ("stopped", "b")]


def test_a_gap_in_the_audio_is_silence_within_the_response() -> None:
    """If the next audio of a response is late, silence is sent, and the response is not stopped."""
    output, changes = buffer()
    output.add("a", FRAME)
    assert [frame.silent for frame in run(output, 0.0, 1.0)] == [False] + [True] * 49
    output.add("a", FRAME)
    assert not run(output, 1.0, 0.02)[0].silent
    assert changes == [("started", "a")]


def test_a_full_buffer_drops_the_newest_audio() -> None:
    """A buffer of 0.1 s takes five frames. The samples of the sixth are counted as dropped."""
    output, _ = buffer(0.1)
    output.add("a", FRAME * 6)
    assert output.waiting_s == pytest.approx(0.1)
    assert output.dropped_samples == FRAME_BYTES // 2


def test_a_late_sender_catches_up_only_a_little() -> None:
    """After 50 ms the frames that were missed follow at once. After a second they do not: all audio is later."""
    output, _ = buffer()
    output.add("a", FRAME * 20)
    output.take(0.0)
    assert sum(output.take(0.06) is not None for _ in range(10)) == 3
    assert sum(output.take(2.0) is not None for _ in range(10)) == 1


def test_without_dtx_silence_is_sent_all_the_time() -> None:
    """A continuous buffer sends 50 frames of silence a second."""
    output, _ = buffer(continuous=True)
    assert len(run(output, 0.0, 1.0)) == 50
