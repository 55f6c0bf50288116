"""Smart Turn's features equal those of transformers, and it distinguishes complete sentences from incomplete ones."""

from __future__ import annotations

import numpy as np
import pytest
from transformers import WhisperFeatureExtractor

from deployments.engines.speech_in.smart_turn import SmartTurn, smart_turn_features
from deployments.engines.stt.log_mel import log_mel
from rejoinder.core.errors import CallerError
from rejoinder.store.human_clips import HumanClip, moonshine_clips
from rejoinder.store.model_store import ModelStore

RATE = 16_000
# Maximum difference between our float32 features and the reference's float64 features, which are in about [-1, 1].
TOLERANCE = 1e-3


@pytest.mark.parametrize("seconds", [0.01, 1.0, 5.5, 8.0, 12.0])
def test_features_equal_the_reference(seconds: float) -> None:
    """The features of the audio's last 8 s equal those of transformers' WhisperFeatureExtractor to within 1e-3."""
    rng = np.random.default_rng(7)
    audio = (0.1 * rng.standard_normal(round(seconds * RATE))).astype(np.float32)
    window = np.pad(audio[-8 * RATE :], (max(0, 8 * RATE - audio.size), 0))
    reference = WhisperFeatureExtractor(chunk_length=8)(
        window, sampling_rate=RATE, do_normalize=True, return_tensors="np"
    )
    assert np.abs(smart_turn_features(audio) - reference.input_features[0]).max() < TOLERANCE


@pytest.mark.parametrize("seconds", [0.005, 0.7, 3.21, 29.99, 30.0])
def test_skipping_silent_frames_changes_nothing(seconds: float) -> None:
    """Whisper's features of audio padded to 30 s equal those of transformers to within 1e-3.

    Our implementation does not compute the frames of the padding.
    """
    audio = (0.1 * np.random.default_rng(3).standard_normal(round(seconds * RATE))).astype(np.float32)
    reference = WhisperFeatureExtractor()(audio, sampling_rate=RATE, return_tensors="np").input_features[0]
    assert np.abs(log_mel(audio, 3000) - reference).max() < TOLERANCE


def test_newer_whisper_models_have_more_bands() -> None:
    """With 128 bands, as in large-v3, the features equal those of transformers to within 1e-3."""
    audio = (0.1 * np.random.default_rng(4).standard_normal(RATE)).astype(np.float32)
    reference = WhisperFeatureExtractor(feature_size=128)(audio, sampling_rate=RATE, return_tensors="np")
    assert np.abs(log_mel(audio, 3000, bands=128) - reference.input_features[0]).max() < TOLERANCE


@pytest.mark.parametrize("seconds", [0.0, 0.004, 1.0, 4.321, 7.99, 8.0])
def test_equal_frames_are_computed_once(seconds: float) -> None:
    """Features of an utterance after constant padding are the same, within 1e-5, with and without `constant`.

    `constant` states the length of that padding in samples, so that its equal frames are computed once.
    """
    audio = (0.1 * np.random.default_rng(5).standard_normal(round(seconds * RATE))).astype(np.float32)
    lead = 8 * RATE - audio.size
    window = np.concatenate([np.full(lead, 0.25, np.float32), audio])
    assert np.abs(log_mel(window, 800, constant=lead) - log_mel(window, 800)).max() < 1e-5


@pytest.fixture(scope="module")
def smart_turn(store: ModelStore) -> SmartTurn:
    engine = SmartTurn(store.path("smart-turn-v3.2"), threads=1)
    engine.warm_up()
    return engine


@pytest.mark.models
def test_it_distinguishes_whole_sentences_from_beginnings(smart_turn: SmartTurn, store: ModelStore) -> None:
    """On human speech, the mean probability of whole sentences is more than 0.2 above that of their first 30%."""
    clips = moonshine_clips(store.path("human-clips"))
    whole = [smart_turn.predict(clip.pcm()) for clip in clips]
    beginnings = [smart_turn.predict(first_part(clip)) for clip in clips]
    assert all(0 <= p <= 1 for p in whole + beginnings)
    assert np.mean(whole) > np.mean(beginnings) + 0.2


def first_part(clip: HumanClip) -> np.ndarray[tuple[int], np.dtype[np.int16]]:
    """Return the first 30% of the clip, which ends inside its first clause."""
    pcm = clip.pcm()
    part: np.ndarray[tuple[int], np.dtype[np.int16]] = pcm[: int(0.3 * pcm.size)]
    return part


@pytest.mark.models
def test_only_the_last_eight_seconds_count(smart_turn: SmartTurn) -> None:
    """Audio before the last 8 s does not change the probability."""
    recent = np.random.default_rng(1).integers(-2000, 2000, 8 * RATE).astype(np.int16)
    longer = np.concatenate([np.full(4 * RATE, 9000, np.int16), recent])
    assert smart_turn.predict(longer) == smart_turn.predict(recent.tobytes())


@pytest.mark.models
def test_malformed_audio_is_the_callers_error(smart_turn: SmartTurn) -> None:
    """An odd number of bytes raises CallerError."""
    with pytest.raises(CallerError):
        smart_turn.predict(b"\0")
