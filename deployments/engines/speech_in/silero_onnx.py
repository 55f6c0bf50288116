"""Silero VAD in onnxruntime, for replicas on a GPU. The CPU uses `silero.py`, which is faster there."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from deployments.engines.device import CPU, EngineDevice
from deployments.engines.onnx import open_session
from deployments.engines.speech_in.silero import STATE_SIZE
from deployments.engines.speech_in.silero_weights import HIDDEN, INPUTS
from rejoinder.core.audio.pcm import STT_RATE, VAD_WINDOW, Samples


class SileroOnnx:
    """The Silero network as an ONNX session, with the same `step` as `Silero`. Safe to call from several threads."""

    name = "silero-vad 6 (onnxruntime)"

    def __init__(self, file: Path, threads: int = 1, device: EngineDevice = CPU) -> None:
        """Load silero_vad.onnx; raise ModelError if `file` is not that model."""
        self._session = open_session(file, threads, INPUTS, device)

    def warm_up(self) -> None:
        """Run batches of 1 and 16 windows, because the first inference of a shape is slow."""
        for n in (1, 16):
            self.step(np.zeros((n, VAD_WINDOW), np.float32), np.zeros((n, STATE_SIZE), np.float32))

    def step(self, windows: Samples, states: Samples) -> tuple[Samples, Samples]:
        """Return the speech probability of each window, shape (n,), and the states after the windows, shape (n, 320).

        Args:
            windows: Float32 samples in [-1, 1] at 16 kHz, shape (n, 512).
            states: States before the windows, shape (n, 320): hidden state, cell state, 64 samples of context.
        """
        n = len(windows)
        if n == 0:
            return np.zeros(0, np.float32), states
        context = states[:, 2 * HIDDEN :]
        recurrent = states[:, : 2 * HIDDEN].reshape(n, 2, HIDDEN).transpose(1, 0, 2)
        feed = {
            "input": np.concatenate([context, windows], axis=1),
            "state": np.ascontiguousarray(recurrent),
            "sr": np.array(STT_RATE, np.int64),
        }
        probabilities, after = self._session.run(None, feed)
        newest = windows[:, -context.shape[1] :]
        return probabilities.reshape(n), np.concatenate([after.transpose(1, 0, 2).reshape(n, -1), newest], axis=1)
