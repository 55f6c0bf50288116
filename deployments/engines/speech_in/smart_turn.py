"""Smart Turn v3: the probability that a caller has finished a turn, from the last 8 s of audio.

The input matches the model's training (pipecat's LocalSmartTurnAnalyzerV3). Audio shorter than 8 s is padded with
leading silence. The 8 s are scaled to zero mean and unit variance, then turned into Whisper's log-mel features (80,
800).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from deployments.engines.device import CPU, EngineDevice
from deployments.engines.onnx import model_file, open_session
from deployments.engines.pcm import Pcm, speech_samples
from deployments.engines.stt.log_mel import HOP, Features, log_mel
from rejoinder.core.audio.pcm import STT_RATE

WINDOW_S = 8
_WINDOW = WINDOW_S * STT_RATE
_VARIANCE_FLOOR = 1e-7
_LONGEST_S = 60.0


class SmartTurn:
    """The Smart Turn model, as one ONNX session. Safe to call from several threads."""

    name = "smart-turn-v3.2 (onnxruntime)"

    def __init__(self, path: Path, threads: int = 1, device: EngineDevice = CPU) -> None:
        """Load the model from `path`, the .onnx file or its folder; raise ModelError if it is not that model."""
        self._session = open_session(model_file(path), threads, ("input_features",), device)

    def warm_up(self) -> None:
        """Run one inference, because the first one is slow."""
        self.predict(np.zeros(STT_RATE, dtype=np.int16))

    def predict(self, pcm: Pcm) -> float:
        """Return the probability in [0, 1] that the turn is complete, judged by the last 8 s of `pcm`.

        Raises CallerError for malformed PCM, or for more than 60 s of it.
        """
        features = smart_turn_features(speech_samples(pcm, _LONGEST_S))
        (probabilities,) = self._session.run(None, {"input_features": features[np.newaxis]})
        return float(probabilities[0, 0])


def smart_turn_features(audio: Features) -> Features:
    """Return float32 log-mel features (80, 800) of the last 8 s of `audio`."""
    window = np.zeros(_WINDOW, dtype=np.float32)
    recent = audio[-_WINDOW:]
    window[_WINDOW - recent.size :] = recent
    normal = (window - window.mean()) / np.sqrt(window.var() + _VARIANCE_FLOOR)
    return log_mel(normal, _WINDOW // HOP, constant=_WINDOW - recent.size)
