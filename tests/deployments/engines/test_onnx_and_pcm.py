"""Invalid model files and invalid audio raise ModelError and CallerError that describe the fault."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from deployments.engines.onnx import model_file, open_session
from deployments.engines.pcm import Pcm, speech_samples
from rejoinder.core.errors import CallerError, ModelError


def test_half_a_sample_is_the_callers_error() -> None:
    """PCM with an odd number of bytes raises CallerError instead of being truncated."""
    with pytest.raises(CallerError, match="half a sample"):
        speech_samples(b"\0\0\0", max_s=1)


def test_too_long_audio_is_the_callers_error() -> None:
    """Audio of exactly the maximum length is accepted, and audio with one more sample is refused."""
    assert speech_samples(np.zeros(16_000, np.int16), max_s=1).size == 16_000
    with pytest.raises(CallerError, match=r"exceeds 1 s"):
        speech_samples(np.zeros(16_001, np.int16), max_s=1)


def test_stereo_is_the_callers_error() -> None:
    """Audio with two channels raises CallerError."""
    with pytest.raises(CallerError, match="one channel"):
        speech_samples(np.zeros((2, 100), np.int16), max_s=1)


def test_every_form_of_pcm_means_the_same() -> None:
    """The same audio as bytes, int16 samples or float32 samples is converted to the same float32 samples."""
    pcm = np.array([0, 1, -1, 32_767, -32_768], np.int16)
    forms: list[Pcm] = [pcm.tobytes(), pcm, (pcm / 32_768).astype(np.float32)]
    expected = [0, 1 / 32_768, -1 / 32_768, 32_767 / 32_768, -1]
    for form in forms:
        assert speech_samples(form, max_s=1).tolist() == expected


def test_a_missing_model_names_the_folder(tmp_path: Path) -> None:
    """A folder with no .onnx file, or with two, raises a ModelError that lists what was found."""
    with pytest.raises(ModelError, match="none"):
        model_file(tmp_path)
    for name in ("a.onnx", "b.onnx"):
        (tmp_path / name).touch()
    with pytest.raises(ModelError, match=r"a\.onnx, b\.onnx"):
        model_file(tmp_path)


def test_a_damaged_model_is_a_model_error(tmp_path: Path) -> None:
    """A file that is not an ONNX model raises a ModelError with its name and a remedy."""
    file = tmp_path / "broken.onnx"
    file.write_bytes(b"not a model")
    with pytest.raises(ModelError, match=r"broken\.onnx.*rejoinder models"):
        open_session(file, threads=1, inputs=("input",))
