"""Tests of the simulated playout buffer: underruns, and when the first audible sample is played."""

from __future__ import annotations

import base64

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.callers.playout_buffer import BufferedReply, PlayoutBuffer
from rejoinder.core.audio.pcm import WIRE_RATE, float_to_pcm16
from rejoinder.core.wire.formats import AudioFormat, WireEncoder

LOUD = np.full(WIRE_RATE, 0.3)


def delta(seconds: float, *, silent: bool = False, wire: AudioFormat = AudioFormat.PCM) -> str:
    samples = LOUD[: round(seconds * WIRE_RATE)] * (0 if silent else 1)
    return base64.b64encode(WireEncoder(wire)(float_to_pcm16(samples))).decode()


def test_steady_audio_plays_without_a_gap() -> None:
    """Deltas that arrive in time cause no underrun. Playback ends after the sum of their lengths."""
    reply, player = BufferedReply("r"), PlayoutBuffer(AudioFormat.PCM, 0.06)
    for number in range(10):
        player.play(reply, delta(0.1), 1.0 + number * 0.09)
    assert reply.underruns == 0
    assert reply.ends_at == pytest.approx(2.0)
    assert reply.audible_at == 1.0


def test_a_late_delta_is_an_underrun_with_its_length() -> None:
    """If no audio is left for 250 ms, one underrun of 250 ms is counted and the rest is played 250 ms later."""
    reply, player = BufferedReply("r"), PlayoutBuffer(AudioFormat.PCM, 0.06)
    player.play(reply, delta(0.1), 1.0)
    player.play(reply, delta(0.1), 1.35)
    assert reply.underruns == 1
    assert reply.stalled_s == pytest.approx(0.25)
    assert reply.ends_at == pytest.approx(1.45)
    assert reply.played_s(2.0) == pytest.approx(0.2)


def test_the_buffer_fills_before_playback_begins() -> None:
    """If only 20 ms of audio arrive and the buffer holds 60 ms, playback starts 40 ms after their arrival."""
    reply, player = BufferedReply("r"), PlayoutBuffer(AudioFormat.PCM, 0.06)
    player.play(reply, delta(0.02), 1.0)
    assert reply.began_at == pytest.approx(1.04)


def test_an_answer_starts_after_its_filler() -> None:
    """`answered_at` is the time at which the answer, after any filler, starts to play, stalls included.

    The server reports its position in the audio as `answer_from_ms`. If that is None, `answered_at` is None.
    """
    reply, player = BufferedReply("r"), PlayoutBuffer(AudioFormat.PCM, 0.06)
    for at in (1.0, 1.1, 1.2, 4.0, 4.1):
        player.play(reply, delta(0.1), at)
    assert reply.answered_at == reply.audible_at == 1.0
    for from_ms, at in ((0, 1.0), (300, 4.0), (350, 4.05)):
        reply.report = {"answer_from_ms": from_ms}
        assert reply.answered_at == pytest.approx(at)
    reply.report = {"answer_from_ms": None}
    assert reply.answered_at is None


@pytest.mark.parametrize("wire", list(AudioFormat))
def test_leading_silence_is_not_an_answer(wire: AudioFormat) -> None:
    """The first audible sample is found after 300 ms of silence, in every audio format."""
    reply, player = BufferedReply("r"), PlayoutBuffer(wire, 0.06)
    for number in range(3):
        player.play(reply, delta(0.1, silent=True, wire=wire), 1.0 + number * 0.1)
    assert reply.audible_at is None
    player.play(reply, delta(0.1, wire=wire), 1.3)
    assert reply.audible_at == pytest.approx(1.3, abs=0.006)


@given(st.lists(st.tuples(st.floats(0, 0.5), st.integers(1, 20)), min_size=1, max_size=30))
def test_playback_never_runs_ahead_of_the_received_audio(chunks: list[tuple[float, int]]) -> None:
    """At any time the played audio is at most the received audio.

    The time from the start to the end of playback is the length of the received audio plus that of the stalls.
    """
    reply, player = BufferedReply("r"), PlayoutBuffer(AudioFormat.PCM, 0.06)
    now = 1.0
    for gap, hundredths in chunks:
        now += gap
        player.play(reply, delta(hundredths / 100), now)
        assert reply.played_s(now) <= reply.received_s + 1e-9
    assert reply.began_at is not None
    assert reply.ends_at - reply.began_at == pytest.approx(reply.received_s + reply.stalled_s)
