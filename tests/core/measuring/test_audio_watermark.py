"""Tests of audio watermarks, numbered marks that a test answer carries in its words and as a tone in its audio."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rejoinder.core.audio.pcm import float_to_pcm16
from rejoinder.core.measuring import audio_watermark as marking

LOUD = 0.14
WINDOW_BYTES = 2 * marking.WINDOW
marks = st.integers(0, marking.MARKS)


def sound(mark: int, start: int, samples: int) -> bytes:
    """Return `samples` samples of the mark's repeating tone from sample `start` on, as 24 kHz 16-bit PCM."""
    return float_to_pcm16(LOUD * np.resize(np.roll(marking.tone(mark), -start), samples))


@given(marks, st.integers(0, 23_999), st.integers(marking.WINDOW, 5000))
def test_a_mark_is_read_from_any_piece_of_its_tone(mark: int, start: int, samples: int) -> None:
    """From any piece of a mark's tone, `read` returns that mark for every window of WINDOW samples."""
    read = marking.read(sound(mark, start, samples))
    assert read == [mark] * -(-samples // marking.WINDOW)


@given(
    own=marks,
    other=marks,
    start=st.integers(0, 23_999),
    before=st.integers(240, 2000),
    length=st.integers(480, 2000),
)
def test_another_mark_of_two_windows_is_always_found(
    own: int, other: int, start: int, before: int, *, length: int
) -> None:
    """If an answer with its own mark contains 20 ms or more of another mark's tone, `read` finds that other mark.

    `before` and `length` are the samples of the own tone before it and of the other tone. `start` is where in its
    period the other tone begins.
    """
    audio = sound(own, 0, before) + sound(other, start, length) + sound(own, start, 960)
    assert other in marking.read(audio)


@given(marks)
def test_words_name_their_mark(mark: int) -> None:
    """`marks_in` finds the mark in a question's transcript, and in each of the two sentences of a repeated answer."""
    assert marking.marks_in(marking.transcript(mark / 10, ".")) == (mark,)
    assert marking.marks_in(" ".join(marking.answer(mark) * 2)) == (mark, mark)


def test_other_sound_is_not_read_as_a_mark() -> None:
    """Silence, noise, two mixed marks, other frequencies and audio shorter than a window are not read as a mark."""
    noise = np.random.default_rng(1).normal(0, 0.1, 2400)
    seconds = np.arange(2400) / 24_000
    between, below = (np.sin(2 * np.pi * hertz * seconds) for hertz in (marking.BASE_HZ + 5, 200))
    both = (marking.tone(3) + marking.tone(200))[:2400] / 2
    for wave in (np.zeros(2400), noise, both, between, below):
        assert set(marking.read(float_to_pcm16(LOUD * wave))) == {None}
    assert marking.read(sound(7, 0, 100)) == [None]
    assert marking.read(b"") == []
    assert marking.marks_in("Thank you for calling") == ()
