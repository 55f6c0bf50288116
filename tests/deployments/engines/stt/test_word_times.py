"""Tests of the times of words: from the alignment of tokens with audio, and by Whisper on real speech."""

from __future__ import annotations

import av
import pytest
from av.audio.resampler import AudioResampler

from deployments.engines.stt.whisper import Whisper, timed_words
from rejoinder.store.model_store import ModelStore


def test_a_word_begins_with_its_first_token_and_lasts_until_the_next() -> None:
    """Words of several tokens, and characters of several tokens (shown as U+FFFD until the last), get right times."""
    text = "Na\u00efve cats."
    before = ["", " Na", " Na\ufffd", " Na\u00ef", " Na\u00efve", " Na\u00efve cats", " Na\u00efve cats."]
    alignments = [(0, 5), (1, 10), (2, 12), (3, 15), (4, 50), (4, 60), (5, 70), (5, 75)]
    assert timed_words(text, before, alignments) == [("Na\u00efve", 0.1, 1.0), ("cats.", 1.0, 1.5)]


def test_no_alignment_gives_every_word_a_time() -> None:
    """A text without alignment has its words at 0 s, and none is lost."""
    assert timed_words("One two.", ["", " One", " One two."], []) == [("One", 0.0, 0.0), ("two.", 0.0, 0.0)]


@pytest.mark.models
def test_words_are_found_where_they_are_spoken(store: ModelStore) -> None:
    """In a recording that begins a second later, every word is a second later, within 0.3 s."""
    engine = Whisper(store.path("whisper-base"))
    resampler = AudioResampler(format="s16", layout="mono", rate=16_000)
    with av.open(str(store.path("human-clips") / "beckett.wav"), "r") as file:
        clip = b"".join(
            part.to_ndarray().tobytes() for frame in file.decode(audio=0) for part in resampler.resample(frame)
        )
    text = "Ever tried, ever failed. No matter, try again. Fail again. Fail better."
    plain, later = (engine.word_times(audio, text) for audio in (clip, bytes(32_000) + clip))
    assert [word for word, _, _ in plain] == text.split()
    starts = [start for _, start, _ in plain]
    assert starts == sorted(starts)
    assert max(abs(b - a - 1.0) for a, b in zip(starts[1:], [start for _, start, _ in later][1:], strict=True)) < 0.3
    assert 3 < len(clip) / 32_000 - starts[-1] + 2 < 6
