"""Tests of Silero VAD: batches, state, and agreement with the reference implementation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from silero_vad.utils_vad import OnnxWrapper

from deployments.engines.pcm import speech_samples
from deployments.engines.speech_in.silero import STATE_SIZE, Silero
from deployments.engines.speech_in.silero_onnx import SileroOnnx
from rejoinder.core.audio.pcm import Samples
from rejoinder.core.errors import CallerError, ModelError
from rejoinder.store.human_clips import moonshine_clips
from rejoinder.store.model_store import ModelStore

pytestmark = pytest.mark.models

STREAMS = 5
# Maximum difference of probabilities from float32 rounding with different batch sizes.
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def silero(store: ModelStore) -> Silero:
    engine = Silero(store.path("silero-vad"), threads=1)
    engine.warm_up()
    return engine


@pytest.fixture(scope="module")
def streams(store: ModelStore) -> Samples:
    """Five streams of 60 windows of human speech, shape (60, 5, 512)."""
    clips = [clip.pcm() for clip in moonshine_clips(store.path("human-clips"))[1 : STREAMS + 1]]
    cut = np.stack([speech_samples(clip[: 60 * 512], max_s=2) for clip in clips])
    return cut.reshape(STREAMS, 60, 512).transpose(1, 0, 2)


def run(silero: Silero, streams: Samples) -> Samples:
    states = np.zeros((streams.shape[1], STATE_SIZE), np.float32)
    rows = []
    for windows in streams:
        probabilities, states = silero.step(windows, states)
        rows.append(probabilities)
    return np.stack(rows)


def test_a_batch_equals_its_streams_alone(silero: Silero, streams: Samples) -> None:
    """Speech probabilities of a stream in a batch differ by at most 1e-4 from those of the stream alone."""
    together = run(silero, streams)
    for i in range(STREAMS):
        assert np.allclose(together[:, i : i + 1], run(silero, streams[:, i : i + 1]), atol=TOLERANCE)


def test_it_equals_silero_vads_own_wrapper(silero: Silero, streams: Samples, store: ModelStore) -> None:
    """Probabilities over a whole stream equal those of silero-vad's OnnxWrapper to within 1e-4."""
    reference = OnnxWrapper(str(store.path("silero-vad") / "silero_vad.onnx"), force_onnx_cpu=True)
    expected = [float(reference(torch.from_numpy(window.copy()), 16_000)[0, 0]) for window in streams[:, 0]]
    ours = run(silero, streams[:, :1])[:, 0]
    assert np.allclose(ours, expected, atol=TOLERANCE)
    assert ours.max() > 0.9
    assert ours.min() < 0.1


def test_wrong_shapes_are_the_callers_error(silero: Silero) -> None:
    """Windows of a wrong size, or a wrong number of states, raise CallerError."""
    with pytest.raises(CallerError):
        silero.step(np.zeros((1, 500), np.float32), np.zeros((1, STATE_SIZE), np.float32))
    with pytest.raises(CallerError):
        silero.step(np.zeros((2, 512), np.float32), np.zeros((1, STATE_SIZE), np.float32))


def test_an_empty_batch_is_allowed(silero: Silero) -> None:
    """A batch without windows returns no probabilities."""
    probabilities, states = silero.step(np.zeros((0, 512), np.float32), np.zeros((0, STATE_SIZE), np.float32))
    assert probabilities.size == 0
    assert states.shape == (0, STATE_SIZE)


def test_another_model_is_refused(store: ModelStore) -> None:
    """The constructor raises ModelError for a readable ONNX file of another model."""
    with pytest.raises(ModelError, match="not the Silero ONNX model"):
        Silero(Path(store.path("smart-turn-v3.2")))


def test_the_network_in_onnxruntime_is_the_same(silero: Silero, streams: Samples, store: ModelStore) -> None:
    """The ONNX session, which a GPU runs, gives the probabilities and states of the NumPy network to within 1e-4."""
    session = SileroOnnx(store.path("silero-vad") / "silero_vad.onnx")
    session.warm_up()
    states = other = np.zeros((STREAMS, STATE_SIZE), np.float32)
    for windows in streams:
        probabilities, states = silero.step(windows, states)
        others, other = session.step(windows, other)
        assert np.allclose(probabilities, others, atol=TOLERANCE)
        assert np.allclose(states, other, atol=1e-3)
    assert probabilities.shape == others.shape == (STREAMS,)
    assert session.step(windows[:0], states[:0])[0].size == 0
