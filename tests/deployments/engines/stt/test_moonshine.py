"""The quick ears: what they hear, when they doubt, and what the pair costs in accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from benchmarks.studies.quick_study import HEADER, cascade, describe, study
from deployments.engines.pcm import Pcm
from deployments.engines.stt.cascade import CascadeResult, SttCascade
from deployments.engines.stt.moonshine import Decoding, Moonshine, read_vocabulary
from deployments.engines.stt.whisper import Whisper, WhisperOptions, WhisperResult
from rejoinder.core.errors import CallerError, ModelError
from rejoinder.core.measuring.wer import pooled_error_rate, word_errors
from rejoinder.core.settings.settings import SttSettings
from rejoinder.store.human_clips import moonshine_clips
from rejoinder.store.human_corpus import debian_clips, missing_packages
from rejoinder.store.model_store import ModelStore

EVERY_PROMPT = 16
MOST_IT_MAY_COST = 1.0
"""Points of word error rate, against the large model alone."""
DOUBT = SttSettings().first_pass_min_logprob


@pytest.fixture(scope="module")
def quick(store: ModelStore) -> Moonshine:
    engine = Moonshine(store.path("moonshine-tiny-en"))
    engine.warm_up()
    return engine


class Careful:
    """Says what it was asked, and knows how often."""

    name = "careful"

    def __init__(self) -> None:
        self.asked = 0

    def warm_up(self) -> None:
        pass

    def transcribe_batch(self, clips: Sequence[Pcm]) -> list[WhisperResult]:
        self.asked += len(clips)
        return [WhisperResult("Heard with care.", -0.1, full_padding=True) for _ in clips]


@pytest.mark.models
def test_prose_is_heard(quick: Moonshine, store: ModelStore) -> None:
    """Read aloud, one word in ten is wrong at most, and every transcript ends by itself."""
    clips = moonshine_clips(store.path("human-clips"))
    heard = [quick.transcribe_batch([clip.pcm()])[0].hypothesis for clip in clips]
    assert all(hypothesis.finished for hypothesis in heard)
    assert pooled_error_rate([(clip.text, said.text) for clip, said in zip(clips, heard, strict=True)]) <= 0.10


@pytest.mark.models
def test_a_batch_hears_what_single_clips_say(quick: Moonshine, store: ModelStore) -> None:
    """Clips of different lengths decoded together are transcribed as well as alone (8-bit activations share one scale,
    so a comma may become a full stop).
    """
    pcm = [clip.pcm() for clip in moonshine_clips(store.path("human-clips"))[1:6]]
    alone = [quick.transcribe_batch([clip])[0].hypothesis.text for clip in pcm]
    together = [said.hypothesis.text for said in quick.transcribe_batch(pcm)]
    assert pooled_error_rate(list(zip(alone, together, strict=True))) <= 0.05


@pytest.mark.models
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9, 1.0])
def test_a_guess_changes_nothing_but_the_time(quick: Moonshine, store: ModelStore, share: float) -> None:
    """Checked against the tokens of a part of the same clip, or of another one, a clip is heard as without."""
    clips = [clip.pcm() for clip in moonshine_clips(store.path("human-clips"))[1:8]]
    stranger = quick.transcribe_batch([clips[-1]])[0].tokens
    for clip in clips:
        alone = quick.transcribe_batch([clip])[0]
        begun = quick.transcribe_batch([clip[: round(share * clip.size)]])[0].tokens
        for guess in (begun, stranger, alone.tokens):
            guessed = quick.transcribe_batch([clip], guess)[0]
            assert word_errors(alone.hypothesis.text, guessed.hypothesis.text) == 0
            assert guessed.hypothesis.avg_logprob == pytest.approx(alone.hypothesis.avg_logprob, abs=0.05)


def test_decoding_keeps_what_was_guessed_right() -> None:
    """Tokens count up to the first that was not the best behind the one before it; the end ends a row."""
    decoding = Decoding([10])
    sure = np.zeros((1, 4), np.float32)
    decoding.take(np.array([[7, 8, 9, 5]]), sure, np.array([[1, 7, 8, 3]]))
    assert (decoding.tokens, decoding.length, decoding.newest.tolist()) == ([[7, 8, 9]], 3, [9])
    decoding.take(np.array([[2]]), sure[:, :1], np.array([[9]]))
    assert decoding.over
    assert decoding.tokens == [[7, 8, 9]]
    assert len(decoding.logprobs[0]) == 4


def test_decoding_ends_every_row_at_its_limit() -> None:
    """A row that is over takes nothing more, while another goes on."""
    decoding = Decoding([1, 2])
    for token in (4, 5):
        decoding.take(np.full((2, 1), token), np.zeros((2, 1), np.float32), np.array([[1], [1]]))
    assert decoding.over
    assert decoding.tokens == [[4], [4, 5]]


@pytest.mark.models
def test_what_is_in_doubt_is_heard_again(quick: Moonshine, store: ModelStore) -> None:
    """Clear speech stands as the small model heard it; noise goes to the large one; a partial never does."""
    clear = moonshine_clips(store.path("human-clips"))[6].pcm()
    noise = np.random.default_rng(5).integers(-3000, 3000, 24_000, dtype=np.int16)
    careful = Careful()
    ears = SttCascade(careful, quick, DOUBT)
    spoken, doubtful = ears.transcribe_batch([clear, noise])
    assert (spoken.repeated, careful.asked) == (False, 1)
    assert "everything before us" in spoken.text
    assert not spoken.doubted
    assert doubtful == CascadeResult("Heard with care.", -0.1, repeated=True, full_padding=True)
    (guessed,) = ears.transcribe_batch([noise], partial=True)
    assert guessed.doubted
    assert careful.asked == 1


@pytest.mark.models
@pytest.mark.parametrize("level", [0.0, 0.001, 0.01, 0.1])
def test_silence_and_noise_have_no_text(quick: Moonshine, store: ModelStore, level: float) -> None:
    """What the small model invents on silence, white noise and hum, it doubts; and the large one hears nothing."""
    whisper = Whisper(store.path("whisper-base"), WhisperOptions(threads=2))
    ears = SttCascade(whisper, quick, DOUBT)
    rng = np.random.default_rng(11)
    for seconds in (0.4, 1, 3, 6):
        time = np.arange(round(seconds * 16_000)) / 16_000
        for sound in (rng.standard_normal(time.size), np.sin(2 * np.pi * 50 * time)):
            clip = (level * 32_767 * sound).clip(-32_768, 32_767).astype(np.int16)
            assert ears.transcribe_batch([clip])[0].text == ""


@pytest.mark.models
@pytest.mark.human_speech
@pytest.mark.timeout(400)
def test_the_pair_costs_at_most_a_point(quick: Moonshine, store: ModelStore) -> None:
    """On commands, digits, novels and telephone prompts the pair is as good as the large model within a point."""
    assert not missing_packages(), f"apt-get install {' '.join(missing_packages())}"
    careful = Whisper(store.path("whisper-base"), WhisperOptions(threads=2))
    clips = [*moonshine_clips(store.path("human-clips")), *debian_clips(EVERY_PROMPT)]
    row = cascade(list(study(quick, careful, clips)), DOUBT)
    print(HEADER, describe(row), sep="\n")
    assert row.difference <= MOST_IT_MAY_COST
    assert row.repeated < 1


@pytest.mark.models
def test_bad_audio_is_the_callers_error(quick: Moonshine) -> None:
    """Half a sample and more than 30 s are refused; no clips make no transcripts; a click is no error."""
    for bad in (b"\0", np.zeros(30 * 16_000 + 1, np.int16)):
        with pytest.raises(CallerError):
            quick.transcribe_batch([bad])
    assert quick.transcribe_batch([]) == []
    assert len(quick.transcribe_batch([np.zeros(3, np.int16)])) == 1


def test_a_missing_model_is_a_model_error(tmp_path: Path) -> None:
    """A folder without the graphs names the file; so does a vocabulary that is cut off."""
    with pytest.raises(ModelError, match=r"encoder_model\.ort"):
        Moonshine(tmp_path)
    words = tmp_path / "tokenizer.bin"
    words.write_bytes(b"\x05abc")
    with pytest.raises(ModelError, match=r"tokenizer\.bin"):
        read_vocabulary(words)
    words.write_bytes(b"\x02ab" + bytes([128 + 2, 1]) + b"x" * 130)
    assert read_vocabulary(words) == [b"ab", b"x" * 130]


def test_another_language_is_heard_once() -> None:
    """There is no small model but the English one."""
    assert SttSettings().hears_twice
    assert not SttSettings(language="de").hears_twice
    assert not SttSettings(first_pass_model="").hears_twice
