"""Silero VAD: the probability that a window holds speech, for many streams in one call.

The network is a pure function of (window, state). A stream's state is 320 floats: the recurrent state, 2 x 128, and
the 64 samples before the window, which the network reads as context (silero-vad 6, `utils_vad.OnnxWrapper`).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from deployments.engines.onnx import model_file, open_session
from rejoinder.core.audio import STT_RATE, VAD_WINDOW, Samples
from rejoinder.core.errors import CallerError

_RECURRENT_SHAPE = (2, 128)
_RECURRENT = 2 * 128
_CONTEXT = 64
STATE_SIZE = _RECURRENT + _CONTEXT


class Silero:
    """One ONNX session, safe to call from several threads; holds no stream's state."""

    name = "silero-vad 6 (onnxruntime)"

    def __init__(self, path: Path, threads: int = 1) -> None:
        """`path`: silero_vad.onnx or the folder that holds it; raises ModelError if it is not that model."""
        self._session = open_session(model_file(path), threads, ("input", "state", "sr"))
        self._rate = np.array(STT_RATE, dtype=np.int64)

    def warm_up(self) -> None:
        """Run the batch sizes that a tick starts with, so that no caller pays for first-call allocation."""
        for n in (1, 16):
            self.step(np.zeros((n, VAD_WINDOW), np.float32), np.zeros((n, STATE_SIZE), np.float32))

    def step(self, windows: Samples, states: Samples) -> tuple[Samples, Samples]:
        """Speech probabilities (n,) of windows (n, 512), and the states (n, 320) after them.

        `states` are those before the windows; zeros start a stream. Raises CallerError for other shapes.
        """
        n = len(windows)
        if windows.shape != (n, VAD_WINDOW) or states.shape != (n, STATE_SIZE):
            message = f"windows {windows.shape} and states {states.shape} do not fit."
            raise CallerError(message, f"Send shapes (n, {VAD_WINDOW}) and (n, {STATE_SIZE}).", code="invalid_audio")
        if n == 0:
            return np.zeros(0, np.float32), states
        recurrent = states[:, :_RECURRENT].reshape(n, *_RECURRENT_SHAPE).transpose(1, 0, 2)
        inputs = {
            "input": np.concatenate([states[:, _RECURRENT:], windows], axis=1),
            "state": np.ascontiguousarray(recurrent),
            "sr": self._rate,
        }
        probabilities, recurrent = self._session.run(None, inputs)
        after = np.empty((n, STATE_SIZE), dtype=np.float32)
        after[:, :_RECURRENT] = recurrent.transpose(1, 0, 2).reshape(n, _RECURRENT)
        after[:, _RECURRENT:] = windows[:, -_CONTEXT:]
        return probabilities[:, 0], after
