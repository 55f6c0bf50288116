"""Voice activity detection with Silero, inside a session host or as the Vad deployment.

It is stateless: a batch contains the state of each audio stream, and the result contains the next states. So any
replica can serve any batch. By default the session host calls `decide` in its own process. With the setting
`vad.placement: deployment` it calls the deployment.
"""

from __future__ import annotations

import numpy as np

from actors.stages.ports import VadBatch, VadResult
from deployments.engines.speech_in.silero import Silero
from deployments.serving.placements import ReplicaRoute
from deployments.serving.replica import EngineThread, Replica, StageDeployment
from rejoinder.core.settings.settings import Settings
from rejoinder.store import open_store


def load_silero(settings: Settings) -> Silero:
    """Return the Silero engine with the model from the store, after its warm-up."""
    engine = Silero(open_store(settings.models).path("silero-vad") / "silero_vad.onnx", settings.vad.threads)
    engine.warm_up()
    return engine


def decide(engine: Silero, batch: VadBatch) -> VadResult:
    """Return the result of a batch: a speech probability for each window, and each stream's state after its window.

    A window has 512 samples at 16 kHz. The batch contains one window and one state for each stream.
    """
    windows = np.frombuffer(batch.windows, np.float32).reshape(batch.n, -1)
    states = np.frombuffer(batch.states, np.float32).reshape(batch.n, -1)
    probabilities, after = engine.step(windows, states)
    return VadResult(tuple(probabilities.tolist()), after.tobytes())


class Vad(StageDeployment):
    """Ray Serve deployment of voice activity detection."""

    def __init__(self, settings: Settings) -> None:
        self._engine = load_silero(settings)
        self._worker = EngineThread("silero")
        self._replica = Replica("vad", self._engine.name, settings.vad, self._worker)

    async def step(self, batch: VadBatch, route: ReplicaRoute | None = None) -> VadResult:
        """Return the result of `decide` for one batch, computed on the engine's thread.

        `route` is for the router in the calling process; this method ignores it.
        """
        async with self._replica.request():
            return await self._worker.run(lambda: decide(self._engine, batch))
