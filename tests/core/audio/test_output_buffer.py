"""Tests of the output buffer of a call whose audio the server plays."""

from __future__ import annotations

from rejoinder.core.audio.output_buffer import FRAME_BYTES, FRAME_S, OutputBuffer

TONE = b"\x10\x20" * (FRAME_BYTES // 2)


def _played(buffer: OutputBuffer, now: float, frames: int) -> list[bytes]:
    """Return the next frames that contain audio, taken when they are due from `now` on."""
    taken = [buffer.take(now + number * FRAME_S + 0.001) for number in range(frames)]
    return [frame.pcm for frame in taken if frame and not frame.silent]


def test_audio_leaves_in_real_time_and_each_response_is_told() -> None:
    """No frame leaves before its time. A response has started with its first frame and stopped with its last."""
    changes: list[tuple[str, str]] = []
    buffer = OutputBuffer(10, lambda change, name: changes.append((change, name)))
    buffer.add("one", TONE * 2)
    buffer.end("one")
    buffer.add("two", TONE)
    assert buffer.take(5.0)
    assert buffer.take(5.01) is None
    assert changes == [("started", "one")]
    assert _played(buffer, 5.02, 3) == [TONE, TONE]
    assert changes == [("started", "one"), ("stopped", "one"), ("started", "two")]
    buffer.end("two")
    assert changes[-1] == ("stopped", "two")


def test_clearing_drops_what_was_not_sent() -> None:
    """The number of samples that were dropped is exact, and the response is told as cleared once."""
    changes: list[str] = []
    buffer = OutputBuffer(10, lambda change, _: changes.append(change))
    buffer.add("one", TONE * 10)
    assert len(_played(buffer, 0.0, 3)) == 3
    assert buffer.clear("one") == 7 * FRAME_BYTES // 2
    assert buffer.clear() == 0
    assert changes == ["started", "cleared"]
    assert _played(buffer, 0.1, 5) == []


def test_the_buffer_is_bounded() -> None:
    """Audio beyond the maximum is dropped and counted."""
    buffer = OutputBuffer(0.1, lambda *_: None)
    buffer.add("one", TONE * 8)
    assert buffer.waiting_s == 0.1
    assert buffer.dropped_samples == 3 * FRAME_BYTES // 2


def test_nothing_is_sent_while_there_is_nothing_to_hear() -> None:
    """After the end the sender pauses, and the number of the next frame counts the pause."""
    buffer = OutputBuffer(10, lambda *_: None)
    buffer.add("one", TONE)
    buffer.end("one")
    _played(buffer, 0.0, 30)
    assert buffer.wait_s(1.0) is None
    buffer.add("two", TONE)
    frame = buffer.take(2.0)
    assert frame
    assert frame.number == 100
