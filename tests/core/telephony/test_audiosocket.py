"""Tests of AudioSocket's frames, and of the pacing of audio for a telephone without a buffer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoinder.core.telephony.audiosocket import FRAME_BYTES, FrameKind, FrameReader, SocketFrame
from rejoinder.core.telephony.frame_pacer import FRAME_S, PhonePacer

FRAMES = st.builds(SocketFrame, st.integers(0, 255), st.binary(max_size=700))


@given(st.lists(FRAMES, max_size=6), st.integers(1, 400))
def test_frames_are_read_however_they_are_split(frames: list[SocketFrame], size: int) -> None:
    """Encoded frames are read again as they were, in pieces of any size."""
    data = b"".join(frame.encode() for frame in frames)
    reader = FrameReader()
    found = [frame for at in range(0, len(data), size) for frame in reader.feed(data[at : at + size])]
    assert found == frames


@pytest.mark.parametrize(
    ("payload", "digit"), [(b"5", "5"), (b"#", "#"), (b"d", "D"), (b"x", ""), (b"", ""), (b"12", "")]
)
def test_keys(payload: bytes, digit: str) -> None:
    """A DTMF frame names one key of a telephone, otherwise none. `0` is the digit zero, not the byte."""
    assert SocketFrame(FrameKind.DTMF, payload).digit == digit


def _play(pacer: PhonePacer, start: float, seconds: float, step: float) -> list[tuple[float, int, list[str]]]:
    """Ask a pacer every `step` seconds. Return (time, number of frames, marks) of each answer that is not empty."""
    found = []
    for number in range(round(seconds / step)):
        now = start + number * step
        frames, marks = pacer.due(now)
        assert all(len(frame) == FRAME_BYTES for frame in frames)
        if frames or marks:
            found.append((round(now - start, 3), len(frames), marks))
    return found


def test_frames_leave_every_20_ms_and_marks_when_they_were_played() -> None:
    """100 ms of audio are five frames, and its mark comes back 100 ms after the first one."""
    pacer = PhonePacer()
    pacer.add(bytes(5 * FRAME_BYTES), "a")
    answers = _play(pacer, 50.0, 0.3, 0.01)
    assert [(at, count) for at, count, _ in answers if count] == [(0.02 * frame, 1) for frame in range(5)]
    assert [at for at, _, marks in answers if marks == ["a"]] == [0.1]


@given(st.lists(st.integers(1, 900), min_size=1, max_size=12), st.sampled_from([0.005, 0.01, 0.02]))
def test_no_sample_is_lost(sizes: list[int], step: float) -> None:
    """Pieces of any size leave in order and whole, at most one frame for each 20 ms, and every mark comes back once."""
    pacer = PhonePacer()
    pieces = [bytes([number + 1]) * 2 * size for number, size in enumerate(sizes)]
    for number, piece in enumerate(pieces):
        pacer.add(piece, str(number))
    sent, marks = b"", list[str]()
    total = sum(map(len, pieces))
    for number in range(round(total / FRAME_BYTES * FRAME_S / step) + 40):
        frames, returned = pacer.due(9.0 + number * step)
        sent += b"".join(frames)
        marks += returned
        assert len(sent) <= (number * step / FRAME_S + 1.001) * FRAME_BYTES
    assert sent[:total] == b"".join(pieces)
    assert not any(sent[total:])
    assert marks == [str(number) for number in range(len(sizes))]


def test_dropped_audio_returns_no_mark() -> None:
    """After `drop`, nothing of the old audio leaves, and new audio starts at once."""
    pacer = PhonePacer()
    pacer.add(b"\x01" * FRAME_BYTES * 9, "old")
    pacer.due(1.0)
    pacer.drop()
    assert pacer.due(1.02) == ([], [])
    pacer.add(b"\x02" * FRAME_BYTES, "new")
    assert pacer.due(1.03) == ([b"\x02" * FRAME_BYTES], [])
    assert pacer.due(1.06) == ([], ["new"])


def test_a_late_timer_does_not_cause_a_burst() -> None:
    """After half a second without a call, one frame is due and not 25."""
    pacer = PhonePacer()
    pacer.add(bytes(FRAME_BYTES * 50), "a")
    pacer.due(1.0)
    assert len(pacer.due(1.5)[0]) == 1
