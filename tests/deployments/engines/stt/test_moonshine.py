"""Tests of the first-pass recognizer, and of the cascade that repeats low-confidence clips with a second recognizer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from benchmarks.studies.first_pass_study import HEADER, cascade, describe, study
from deployments.engines.pcm import Pcm
from deployments.engines.stt.cascade import CascadeResult, SttCascade
from deployments.engines.stt.moonshine import Decoding, Moonshine, read_vocabulary
from deployments.engines.stt.whisper import TimedWord, Whisper, WhisperOptions, WhisperResult
from rejoinder.core.errors import CallerError, ModelError
from rejoinder.core.measuring.wer import pooled_error_rate, word_errors
from rejoinder.core.settings.settings import SttSettings
from rejoinder.store.human_clips import moonshine_clips
from rejoinder.store.human_corpus import debian_clips, missing_packages
from rejoinder.store.model_store import ModelStore

EVERY_PROMPT = 16
MAX_DIFFERENCE = 1.0
"""Maximum increase of the word error rate over the main recognizer alone, in percentage points."""
MIN_LOGPROB = SttSettings().first_pass_min_logprob


@pytest.fixture(scope="module")
def first_pass(store: ModelStore) -> Moonshine:
    engine = Moonshine(store.path("moonshine-tiny-en"))
    engine.warm_up()
    return engine


class FakeRecognizer:
    """Stand-in for the cascade's second recognizer: it returns one fixed text and counts the clips."""

    name = "fake"

    def __init__(self) -> None:
        self.clips = 0

    def warm_up(self) -> None:
        pass

    def transcribe_batch(self, clips: Sequence[Pcm], doubtful: Sequence[bool] | None = None) -> list[WhisperResult]:
        self.clips += len(clips)
        return [WhisperResult("A second transcript.", -0.1, full_padding=True) for _ in clips]

    def word_times(self, clip: Pcm, text: str, language: str = "") -> list[TimedWord]:
        return []


@pytest.mark.models
def test_prose_is_transcribed(first_pass: Moonshine, store: ModelStore) -> None:
    """On prose read aloud, the word error rate is at most 10%, and no decode reaches its length limit."""
    clips = moonshine_clips(store.path("human-clips"))
    hypotheses = [first_pass.transcribe_batch([clip.pcm()])[0].hypothesis for clip in clips]
    assert all(hypothesis.finished for hypothesis in hypotheses)
    assert pooled_error_rate([(clip.text, h.text) for clip, h in zip(clips, hypotheses, strict=True)]) <= 0.10


@pytest.mark.models
def test_a_batch_is_transcribed_like_single_clips(first_pass: Moonshine, store: ModelStore) -> None:
    """Transcripts of clips decoded in one batch differ from those decoded alone in at most 5% of the words.

    The transcripts may differ a little, because 8-bit activations of a batch share one scale.
    """
    pcm = [clip.pcm() for clip in moonshine_clips(store.path("human-clips"))[1:6]]
    alone = [first_pass.transcribe_batch([clip])[0].hypothesis.text for clip in pcm]
    together = [result.hypothesis.text for result in first_pass.transcribe_batch(pcm)]
    assert pooled_error_rate(list(zip(alone, together, strict=True))) <= 0.05


@pytest.mark.models
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9, 1.0])
def test_a_guess_does_not_change_the_transcript(first_pass: Moonshine, store: ModelStore, share: float) -> None:
    """Decoding that starts from guessed tokens gives the same words as decoding without a guess.

    The guess is the transcript of the first `share` of the clip, of another clip, or of the whole clip.
    """
    clips = [clip.pcm() for clip in moonshine_clips(store.path("human-clips"))[1:8]]
    unrelated = first_pass.transcribe_batch([clips[-1]])[0].tokens
    for clip in clips:
        alone = first_pass.transcribe_batch([clip])[0]
        beginning = first_pass.transcribe_batch([clip[: round(share * clip.size)]])[0].tokens
        for guess in (beginning, unrelated, alone.tokens):
            guessed = first_pass.transcribe_batch([clip], guess)[0]
            assert word_errors(alone.hypothesis.text, guessed.hypothesis.text) == 0
            assert guessed.hypothesis.avg_logprob == pytest.approx(alone.hypothesis.avg_logprob, abs=0.05)


def test_decoding_keeps_correctly_guessed_tokens() -> None:
    """Guessed tokens are accepted up to the first mismatch. The end token ends the decoding of a clip."""
    decoding = Decoding([10])
    logprobs = np.zeros((1, 4), np.float32)
    decoding.add(np.array([[7, 8, 9, 5]]), logprobs, np.array([[1, 7, 8, 3]]))
    assert (decoding.tokens, decoding.length, decoding.newest.tolist()) == ([[7, 8, 9]], 3, [9])
    decoding.add(np.array([[2]]), logprobs[:, :1], np.array([[9]]))
    assert decoding.ended
    assert decoding.tokens == [[7, 8, 9]]
    assert len(decoding.logprobs[0]) == 4


def test_decoding_ends_every_row_at_its_limit() -> None:
    """A clip of a batch that has reached its token limit gets no more tokens while another clip continues."""
    decoding = Decoding([1, 2])
    for token in (4, 5):
        decoding.add(np.full((2, 1), token), np.zeros((2, 1), np.float32), np.array([[1], [1]]))
    assert decoding.ended
    assert decoding.tokens == [[4], [4, 5]]


@pytest.mark.models
def test_a_low_confidence_transcript_is_repeated(first_pass: Moonshine, store: ModelStore) -> None:
    """The second recognizer transcribes noise again. It does not get clear speech or clips for interim transcripts."""
    clear = moonshine_clips(store.path("human-clips"))[6].pcm()
    noise = np.random.default_rng(5).integers(-3000, 3000, 24_000, dtype=np.int16)
    main = FakeRecognizer()
    stt = SttCascade(main, first_pass, MIN_LOGPROB)
    confident, repeated = stt.transcribe_batch([clear, noise])
    assert (confident.repeated, main.clips) == (False, 1)
    assert "everything before us" in confident.text
    assert not confident.low_confidence
    assert repeated == CascadeResult("A second transcript.", -0.1, repeated=True, full_padding=True)
    (interim,) = stt.transcribe_batch([noise], partial=True)
    assert interim.low_confidence
    assert main.clips == 1


@pytest.mark.models
@pytest.mark.parametrize("level", [0.0, 0.001, 0.01, 0.1])
def test_silence_and_noise_have_no_text(first_pass: Moonshine, store: ModelStore, level: float) -> None:
    """On silence, white noise and a 50 Hz hum, the transcript of the cascade with Whisper is empty."""
    whisper = Whisper(store.path("whisper-base"), WhisperOptions(threads=2))
    stt = SttCascade(whisper, first_pass, MIN_LOGPROB)
    rng = np.random.default_rng(11)
    for seconds in (0.4, 1, 3, 6):
        time = np.arange(round(seconds * 16_000)) / 16_000
        for sound in (rng.standard_normal(time.size), np.sin(2 * np.pi * 50 * time)):
            clip = (level * 32_767 * sound).clip(-32_768, 32_767).astype(np.int16)
            assert stt.transcribe_batch([clip])[0].text == ""


@pytest.mark.models
@pytest.mark.human_speech
@pytest.mark.timeout(400)
def test_the_cascade_costs_at_most_a_point(first_pass: Moonshine, store: ModelStore) -> None:
    """The cascade's word error rate is at most one percentage point above that of Whisper alone.

    The recordings are prose read aloud, commands, digits, novels and telephone prompts.
    """
    assert not missing_packages(), f"apt-get install {' '.join(missing_packages())}"
    whisper = Whisper(store.path("whisper-base"), WhisperOptions(threads=2))
    clips = [*moonshine_clips(store.path("human-clips")), *debian_clips(EVERY_PROMPT)]
    row = cascade(list(study(first_pass, whisper, clips)), MIN_LOGPROB)
    print(HEADER, describe(row), sep="\n")
    assert row.difference <= MAX_DIFFERENCE
    assert row.repeated < 1


@pytest.mark.models
def test_bad_audio_is_the_callers_error(first_pass: Moonshine) -> None:
    """An odd number of bytes, or more than 30 s, raises CallerError. An empty batch and a tiny clip are allowed."""
    for bad in (b"\0", np.zeros(30 * 16_000 + 1, np.int16)):
        with pytest.raises(CallerError):
            first_pass.transcribe_batch([bad])
    assert first_pass.transcribe_batch([]) == []
    assert len(first_pass.transcribe_batch([np.zeros(3, np.int16)])) == 1


def test_a_missing_model_is_a_model_error(tmp_path: Path) -> None:
    """A missing ONNX model file and a truncated vocabulary file raise a ModelError that names the file."""
    with pytest.raises(ModelError, match=r"encoder_model\.ort"):
        Moonshine(tmp_path)
    words = tmp_path / "tokenizer.bin"
    words.write_bytes(b"\x05abc")
    with pytest.raises(ModelError, match=r"tokenizer\.bin"):
        read_vocabulary(words)
    words.write_bytes(b"\x02ab" + bytes([128 + 2, 1]) + b"x" * 130)
    assert read_vocabulary(words) == [b"ab", b"x" * 130]


def test_other_languages_have_no_first_pass() -> None:
    """There is no first-pass recognizer for a language other than English, or if `first_pass_model` is empty."""
    assert SttSettings().has_first_pass
    assert not SttSettings(language="de").has_first_pass
    assert not SttSettings(first_pass_model="").has_first_pass
