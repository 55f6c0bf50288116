"""Is the caller's turn complete: one Smart Turn inference a question, one at a time (batching gains nothing on a
CPU).
"""

from __future__ import annotations

import time

import numpy as np

from actors.stages.ports import TurnVerdict
from deployments.engines.speech_in.smart_turn import SmartTurn
from deployments.serving.placements import ReplicaRoute
from deployments.serving.replica import EngineThread, Replica, StageDeployment
from rejoinder.core.settings.settings import Settings
from rejoinder.store import open_store


class TurnDetector(StageDeployment):
    """The deployment. A cancelled question that waits leaves at once; one that runs (40 ms) ends unheard."""

    def __init__(self, settings: Settings) -> None:
        stage = settings.turn_detector
        folder = open_store(settings.models).path(stage.model)
        self._engine = SmartTurn(folder / "smart-turn-v3.2-cpu.onnx", stage.threads)
        self._engine.warm_up()
        self._worker = EngineThread("smart-turn", stage.nice)
        self._replica = Replica("turn_detector", self._engine.name, stage, self._worker)

    async def predict(self, pcm: bytes, route: ReplicaRoute | None = None) -> TurnVerdict:
        async with self._replica.request():
            return await self._worker.run(lambda: self._judge(pcm))

    def _judge(self, pcm: bytes) -> TurnVerdict:
        began = time.monotonic()
        probability = self._engine.predict(np.frombuffer(pcm, "<i2"))
        return TurnVerdict(probability, (time.monotonic() - began) * 1000)
