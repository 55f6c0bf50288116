"""The TurnDetector deployment: Smart Turn predicts whether the caller's turn is complete.

Requests run one at a time, because batching gains nothing on a CPU.
"""

from __future__ import annotations

import time

import numpy as np

from actors.stages.ports import TurnVerdict
from deployments.engines.device import bytes_of, open_device
from deployments.engines.onnx import model_file
from deployments.engines.speech_in.smart_turn import SmartTurn
from deployments.serving.placements import ReplicaRoute
from deployments.serving.replica import EngineThread, Replica, StageDeployment
from rejoinder.core.settings.settings import Settings
from rejoinder.store import open_store


class TurnDetector(StageDeployment):
    """Ray Serve deployment of the turn detector Smart Turn.

    A cancelled request that is still waiting leaves the queue at once. A request that is running (about 40 ms)
    finishes, and its result is dropped.
    """

    def __init__(self, settings: Settings) -> None:
        stage = settings.turn_detector
        file = model_file(open_store(settings.models).path(stage.model))
        device = open_device("turn_detector", stage, {"onnxruntime": bytes_of([file])})
        self._engine = SmartTurn(file, stage.threads, device)
        self._engine.warm_up()
        self._worker = EngineThread("smart-turn", stage.nice)
        self._replica = Replica("turn_detector", self._engine.name, stage, self._worker)

    async def predict(self, pcm: bytes, route: ReplicaRoute | None = None) -> TurnVerdict:
        """Return the probability that the turn is complete.

        Args:
            pcm: The last 8 s or less of the caller's audio (16 kHz, 16-bit PCM), with the silence at its end.
            route: Which replicas may get this call, for the router in the calling process. If it names a host, the
                answer has the replica's load.
        """
        async with self._replica.request(route) as tracked:
            arrived = time.monotonic()
            verdict = await self._worker.run(lambda: self._judge(pcm))
            tracked.waited(max(0.0, time.monotonic() - arrived - verdict.inference_ms / 1000))
            tracked.produced()
            return self._replica.with_load(verdict, route)

    def _judge(self, pcm: bytes) -> TurnVerdict:
        started_at = time.monotonic()
        probability = self._engine.predict(np.frombuffer(pcm, "<i2"))
        return TurnVerdict(probability, (time.monotonic() - started_at) * 1000)
