"""Tests of Whisper with short audio context, which does not pad every clip to 30 s.

They check accuracy, rejection of bad decodes, and empty transcripts of silence.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import ctranslate2
import numpy as np
import pytest
from transformers import WhisperConfig, WhisperForConditionalGeneration

from benchmarks.studies.wer_study import HEADER, describe, row, study, summarize
from deployments.engines.stt.transcript_guards import Hypothesis, holds_speech, is_trustworthy, repeats_itself
from deployments.engines.stt.whisper import Whisper, WhisperOptions
from rejoinder.core.errors import CallerError, ConfigError, ModelError
from rejoinder.core.measuring.wer import pooled_error_rate
from rejoinder.store.human_clips import HumanClip, moonshine_clips
from rejoinder.store.human_corpus import debian_clips, missing_packages
from rejoinder.store.model_store import ModelStore

# Every 16th of about 340 telephone prompts takes a minute. `wer_study` uses all of them, in ten minutes.
EVERY_PROMPT = 16
# Maximum difference of word error rates, in percentage points.
MAX_DIFFERENCE = 1.0

GOOD = Hypothesis("Go forward ten meters.", -0.3, 0.05, finished=True, duration_s=2.0)


@pytest.mark.parametrize(
    "bad",
    [
        replace(GOOD, finished=False),
        replace(GOOD, avg_logprob=-1.2),
        replace(GOOD, duration_s=0.1),
        replace(GOOD, text="and so on and so on"),
        replace(GOOD, text="no no no no"),
        replace(GOOD, text="the same words again, " * 12, duration_s=30.0),
        replace(GOOD, no_speech_prob=0.6, avg_logprob=-0.95),
    ],
    ids=["token limit", "low confidence", "too fast", "phrase twice", "word four times", "compressible", "near noise"],
)
def test_each_guard_rejects_a_bad_decode(bad: Hypothesis) -> None:
    """A decode with one bad property, such as a repeated phrase, is not trustworthy: the clip is decoded again."""
    assert is_trustworthy(GOOD)
    assert not is_trustworthy(bad)


def test_ordinary_repetition_is_trusted() -> None:
    """A digit said three times and a rhetorical repetition do not count as a loop, so the decode is accepted."""
    assert not repeats_itself(["one", "one", "one"])
    assert not repeats_itself(["it", "was", "the", "best", "of", "times", "it", "was", "the", "worst", "of", "times"])


@pytest.mark.parametrize(
    "invented",
    [
        replace(GOOD, no_speech_prob=0.9),
        replace(GOOD, no_speech_prob=0.5, avg_logprob=-1.1),
        replace(GOOD, text=" . ."),
    ],
)
def test_invented_text_is_not_speech(invented: Hypothesis) -> None:
    """A high no-speech probability, or text without letters, means that the clip contains no speech."""
    assert holds_speech(GOOD)
    assert not holds_speech(invented)


@pytest.fixture(scope="module")
def whisper(store: ModelStore) -> Whisper:
    engine = Whisper(store.path("whisper-base"), WhisperOptions(threads=2))
    engine.warm_up()
    return engine


@pytest.fixture(scope="module")
def padded(store: ModelStore) -> Whisper:
    """A Whisper engine with the same weights that pads every clip to 30 s."""
    engine = Whisper(store.path("whisper-base"), WhisperOptions(threads=2, short_context=False))
    engine.warm_up()
    return engine


def assert_short_context_is_worth_it(whisper: Whisper, padded: Whisper, clips: list[HumanClip]) -> None:
    """Assert that short context has the lower median time and at most MAX_DIFFERENCE points more word errors.

    `padded` is the engine that pads every clip to 30 s. The comparison is also printed as a table.
    """
    results = list(study(whisper, padded, clips))
    summary = summarize(results)
    print(HEADER, *map(row, results), describe("total", summary), sep="\n")
    assert summary.difference <= MAX_DIFFERENCE
    assert summary.short_median_ms < summary.full_median_ms


@pytest.mark.models
def test_short_context_costs_at_most_a_point_of_prose(whisper: Whisper, padded: Whisper, store: ModelStore) -> None:
    """On prose read aloud, short context raises the word error rate by at most one percentage point.

    Its median time for a clip is lower than that of full padding.
    """
    assert_short_context_is_worth_it(whisper, padded, moonshine_clips(store.path("human-clips")))


@pytest.mark.models
@pytest.mark.human_speech
@pytest.mark.timeout(400)
def test_short_context_costs_at_most_a_point_of_short_speech(whisper: Whisper, padded: Whisper) -> None:
    """On short recordings, short context raises the word error rate by at most one percentage point.

    The median time of a clip is lower than with full padding. The test fails if the recordings are not installed.
    """
    assert not missing_packages(), f"apt-get install {' '.join(missing_packages())}"
    assert_short_context_is_worth_it(whisper, padded, debian_clips(EVERY_PROMPT))


@pytest.mark.models
def test_a_batch_is_transcribed_like_single_clips(whisper: Whisper, store: ModelStore) -> None:
    """Clips of different lengths, decoded in one batch, have a word error rate of at most 5%."""
    clips = moonshine_clips(store.path("human-clips"))[1:7]
    together = whisper.transcribe_batch([clip.pcm() for clip in clips])
    assert len(together) == len(clips)
    assert pooled_error_rate([(clip.text, result.text) for clip, result in zip(clips, together, strict=True)]) <= 0.05


@pytest.mark.models
@pytest.mark.parametrize("level", [0.0, 0.001, 0.01, 0.1])
def test_silence_and_noise_have_no_text(whisper: Whisper, level: float) -> None:
    """Silence and white noise give an empty transcript, not Whisper's typical "Thank you."."""
    rng = np.random.default_rng(11)
    clips = [(level * 32_767 * rng.standard_normal(round(s * 16_000))).clip(-32_768, 32_767) for s in (0.4, 1, 3, 6)]
    for clip in clips:
        assert whisper.transcribe_batch([clip.astype(np.int16)])[0].text == ""


@pytest.mark.models
def test_no_clips_make_no_transcripts(whisper: Whisper) -> None:
    """An empty batch returns an empty list."""
    assert whisper.transcribe_batch([]) == []


@pytest.mark.models
def test_bad_audio_is_the_callers_error(whisper: Whisper) -> None:
    """An odd number of bytes, or more than 30 s of audio, raises CallerError."""
    for bad in (b"\0", np.zeros(30 * 16_000 + 1, np.int16)):
        with pytest.raises(CallerError):
            whisper.transcribe_batch([bad])


@pytest.mark.models
def test_a_wrong_language_names_its_setting(store: ModelStore) -> None:
    """An unknown language code raises a ConfigError that names `stt.language`."""
    with pytest.raises(ConfigError, match=r"stt\.language"):
        Whisper(store.path("whisper-base"), WhisperOptions(language="klingon"))


def test_a_missing_model_is_a_model_error(tmp_path: Path) -> None:
    """A missing or empty folder raises ModelError, and is not treated as the name of a hub repository."""
    for folder in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(ModelError):
            Whisper(folder)


@pytest.mark.models
def test_a_model_with_128_bands_is_loaded(store: ModelStore, tmp_path: Path) -> None:
    """A model with 128 mel bands, as large-v3 and turbo have, is loaded and transcribes a clip.

    Its weights are random, so the text is not checked.
    """
    base = store.path("whisper-base")
    layers = {"encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
    sizes = {"d_model": 64, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "num_mel_bins": 128, "vocab_size": 51865}
    model = WhisperForConditionalGeneration(WhisperConfig(**layers, **sizes))
    model.save_pretrained(tmp_path / "random")
    for name in ("tokenizer.json", "vocabulary.txt"):
        shutil.copy(base / name, tmp_path / "random" / name)
    converter = ctranslate2.converters.TransformersConverter(str(tmp_path / "random"), copy_files=["tokenizer.json"])
    converter.convert(str(tmp_path / "converted"), quantization="int8")
    engine = Whisper(tmp_path / "converted")
    assert len(engine.transcribe_batch([np.zeros(16_000, np.int16)])) == 1


@pytest.mark.models
def test_an_english_model_is_refused_for_another_language(store: ModelStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that knows English only is refused if `stt.language` is another one, instead of writing nonsense."""
    monkeypatch.setattr(ctranslate2.models.Whisper, "is_multilingual", property(lambda model: False))
    with pytest.raises(ConfigError, match="knows English only") as caught:
        Whisper(store.path("whisper-base"), WhisperOptions(language="de"))
    assert caught.value.field == "stt.language"
    Whisper(store.path("whisper-base"), WhisperOptions(language="en"))
