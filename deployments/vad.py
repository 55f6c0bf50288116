"""Voice activity detection with Silero, inside a session host or as the Vad deployment.

It is stateless: a batch contains the state of each audio stream, and the result contains the next states. So any
replica can serve any batch. By default the session host calls `decide` in its own process. With the setting
`vad.placement: deployment` it calls the deployment.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from actors.stages.ports import VadBatch, VadResult
from deployments.engines.device import bytes_of, open_device
from deployments.engines.speech_in.silero import STATE_SIZE, Silero
from deployments.engines.speech_in.silero_onnx import SileroOnnx
from deployments.serving.placements import ReplicaRoute
from deployments.serving.replica import EngineThread, Replica, StageDeployment
from rejoinder.core.audio.pcm import SAMPLE_BYTES, VAD_WINDOW, Samples, pcm16_to_float
from rejoinder.core.settings.settings import Settings
from rejoinder.store import open_store

SILERO_FILE = "silero_vad.onnx"


def load_silero(settings: Settings) -> Silero:
    """Return the Silero engine with the model from the store, after its warm-up."""
    engine = Silero(open_store(settings.models).path("silero-vad") / SILERO_FILE, settings.vad.threads)
    engine.warm_up()
    return engine


class VadEngine(Protocol):
    """Protocol of the engines of voice activity detection."""

    @property
    def name(self) -> str:
        """The engine and its model, for reports."""
        ...

    def step(self, windows: Samples, states: Samples) -> tuple[Samples, Samples]:
        """Return the speech probability of each window, shape (n,), and the states after them, shape (n, 320).

        Args:
            windows: Samples of the windows, shape (n, 512).
            states: States before them, shape (n, 320).
        """
        ...


def open_vad(settings: Settings) -> VadEngine:
    """Return the engine of the Vad deployment after its warm-up: NumPy on the CPU, onnxruntime on a GPU.

    Raises:
        ConfigError: The replica reserves a GPU that it cannot use.
    """
    file = open_store(settings.models).path("silero-vad") / SILERO_FILE
    device = open_device("vad", settings.vad, {"onnxruntime": bytes_of([file])})
    if device.name == "cpu":
        return load_silero(settings)
    engine = SileroOnnx(file, settings.vad.threads, device)
    engine.warm_up()
    return engine


def decide(engine: VadEngine, batch: VadBatch) -> VadResult:
    """Return the result of a batch: a speech probability for each window, and each stream's state after its window.

    A window has 512 samples at 16 kHz. The batch contains one window and one state for each stream.
    """
    windows = np.frombuffer(batch.windows, np.float32).reshape(batch.n, -1)
    states = np.frombuffer(batch.states, np.float32).reshape(batch.n, -1)
    probabilities, after = engine.step(windows, states)
    return VadResult(tuple(probabilities.tolist()), after.tobytes())


SPEECH_WINDOWS = 3
"""Number of windows in a row with speech that make audio contain speech: 96 ms, as `speech.min_speech_ms`."""

SPEECH_PROBABILITY = 0.5
"""Minimum probability of a window with speech. 13 kinds of noise, in five lengths, had no SPEECH_WINDOWS windows in a
row with this probability.
"""


def contains_speech(engine: Silero, pcm: bytes) -> bool:
    """Return True if the 16-bit PCM at 16 kHz contains speech. It stops at the first run of windows with speech.

    The cost for audio without speech is 60 us a window: 35 ms for 18 s.
    """
    samples = pcm16_to_float(pcm[: len(pcm) // SAMPLE_BYTES * SAMPLE_BYTES])
    padded = np.pad(samples, (0, -samples.size % VAD_WINDOW))
    state = np.zeros((1, STATE_SIZE), np.float32)
    run = 0
    for window in padded.reshape(-1, 1, VAD_WINDOW):
        probabilities, state = engine.step(window, state)
        run = run + 1 if probabilities[0] >= SPEECH_PROBABILITY else 0
        if run == SPEECH_WINDOWS:
            return True
    return False


class Vad(StageDeployment):
    """Ray Serve deployment of voice activity detection."""

    def __init__(self, settings: Settings) -> None:
        self._engine = open_vad(settings)
        self._worker = EngineThread("silero")
        self._replica = Replica("vad", self._engine.name, settings.vad, self._worker)

    async def step(self, batch: VadBatch, route: ReplicaRoute | None = None) -> VadResult:
        """Return the result of `decide` for one batch, computed on the engine's thread.

        `route` is for the router in the calling process. If it names a host, the result has the replica's load.
        """
        async with self._replica.request(route) as tracked:
            result = await self._worker.run(lambda: decide(self._engine, batch))
            tracked.produced()
            return self._replica.with_load(result, route)
