"""Tests of replicas on a GPU that this machine does not have: what each engine's constructor is given.

The constructors are recorded, and then called for the CPU, so the replicas run on with their real models.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ctranslate2
import faster_whisper
import onnxruntime
import pytest
import xllamacpp

from deployments.answer_cache import AnswerCache
from deployments.engines import device
from deployments.engines.device import CUDA_PROVIDER, GpuProbes, Runtime, visible_gpus
from deployments.engines.speech_in.silero_onnx import SileroOnnx
from deployments.llm import Llm
from deployments.stt import Stt
from deployments.tts import Tts
from deployments.turn_detector import TurnDetector
from deployments.vad import Vad
from rejoinder.core.errors import ConfigError
from rejoinder.core.settings.settings import Settings, parse_settings
from rejoinder.store.model_store import ModelStore

pytestmark = pytest.mark.models

CARD = 8_000_000_000
GPU = {"resources": {"num_gpus": 0.5}}
SMALL = {"model": "smollm2-135m-instruct", "nice": 0}
CUDA_FIRST = [
    (CUDA_PROVIDER, {"device_id": 0, "gpu_mem_limit": CARD // 2, "arena_extend_strategy": "kSameAsRequested"}),
    "CPUExecutionProvider",
]
STAGES: dict[str, tuple[Callable[[Settings], object], dict[str, Any]]] = {
    "vad": (Vad, {"placement": "deployment"}),
    "turn_detector": (TurnDetector, {}),
    "stt": (Stt, {}),
    "llm": (Llm, SMALL),
    "tts": (Tts, {}),
    "answer_cache": (AnswerCache, {"enabled": True}),
}


class Constructions:
    """Record of the arguments of the engines' constructors, each of which then gets arguments for the CPU.

    Attributes:
        sessions: `providers` of each session of onnxruntime.
        models: Keyword arguments of each model of CTranslate2.
        parameters: Parameters of each server of llama.cpp.
        cuda_loads: False: onnxruntime falls back to the CPU without an error, as it does if a library is missing.
    """

    def __init__(self) -> None:
        self.sessions: list[Any] = []
        self.models: list[dict[str, Any]] = []
        self.parameters: list[Any] = []
        self.cuda_loads = True

    def session(self, model: Any, **options: Any) -> Any:
        """Stand in for `onnxruntime.InferenceSession`."""
        record, providers = self, options.pop("providers")
        self.sessions.append(providers)

        class Session(RealSession):  # type: ignore[misc]  # onnxruntime has no types
            def get_providers(self) -> list[str]:
                return [CUDA_PROVIDER] if record.cuda_loads else ["CPUExecutionProvider"]

        return Session(model, **options, providers=["CPUExecutionProvider"])

    def whisper(self, folder: str, **options: Any) -> Any:
        """Stand in for `faster_whisper.WhisperModel`."""
        self.models.append(options)
        return RealWhisper(folder, **options | {"device": "cpu", "compute_type": "int8"})

    def encoder(self, folder: str, **options: Any) -> Any:
        """Stand in for `ctranslate2.Encoder`."""
        self.models.append(options)
        return RealEncoder(folder, **options | {"device": "cpu"})

    def server(self, parameters: Any) -> Any:
        """Stand in for `xllamacpp.Server`, which ignores layers on a GPU if there is none."""
        self.parameters.append(parameters)
        return RealServer(parameters)


RealSession: Any = onnxruntime.InferenceSession
RealWhisper: Any = faster_whisper.WhisperModel
RealEncoder: Any = ctranslate2.Encoder
RealServer: Any = xllamacpp.Server


@pytest.fixture
def record(monkeypatch: pytest.MonkeyPatch) -> Constructions:
    """A process with one GPU of 8 GB and runtimes that can use it, whose engines' constructors are recorded."""
    made = Constructions()
    runtimes: tuple[Runtime, ...] = ("onnxruntime", "ctranslate2", "llama.cpp")
    monkeypatch.setattr(device, "REAL_PROBES", GpuProbes(lambda: [CARD], dict.fromkeys(runtimes, lambda: None)))
    monkeypatch.setattr(onnxruntime, "InferenceSession", made.session)
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None)
    monkeypatch.setattr("deployments.engines.stt.whisper.WhisperModel", made.whisper)
    monkeypatch.setattr(ctranslate2, "Encoder", made.encoder)
    monkeypatch.setattr(xllamacpp, "Server", made.server)
    return made


def start(section: str, **changes: Any) -> Any:
    """Start a replica of a stage with these changes of its settings."""
    replica, base = STAGES[section]
    return replica(parse_settings({section: base | changes}))


@pytest.mark.parametrize(("section", "sessions"), [("vad", 1), ("turn_detector", 1), ("tts", 2)])
def test_an_onnx_stage_on_a_gpu_asks_for_cuda(
    store: ModelStore, record: Constructions, section: str, sessions: int
) -> None:
    """Every session that a stage keeps is opened on the GPU, with the replica's share of its memory as limit."""
    start(section, **GPU)
    assert record.sessions.count(CUDA_FIRST) == sessions


@pytest.mark.parametrize("section", ["turn_detector", "tts"])
def test_an_onnx_stage_without_a_gpu_stays_on_the_cpu(store: ModelStore, record: Constructions, section: str) -> None:
    """Without a reserved GPU no session asks for CUDA, even if the machine has a GPU."""
    start(section)
    assert record.sessions
    assert all(providers == ["CPUExecutionProvider"] for providers in record.sessions)


def test_the_vad_of_a_gpu_is_the_onnx_network(store: ModelStore, record: Constructions) -> None:
    """On a GPU, voice activity detection runs in onnxruntime; on the CPU in NumPy, without a session."""
    assert isinstance(start("vad", **GPU)._engine, SileroOnnx)
    record.sessions.clear()
    start("vad")
    assert not record.sessions


def test_both_recognizers_are_on_the_gpu(store: ModelStore, record: Constructions) -> None:
    """Whisper is loaded for CUDA in float16, and the encoder and decoder of the first pass ask for CUDA."""
    start("stt", **GPU)
    (model,) = record.models
    assert (model["device"], model["compute_type"]) == ("cuda", "float16")
    assert record.sessions.count(CUDA_FIRST) == 2


@pytest.mark.parametrize("compute_type", ["int8_float16", "int8", "float32"])
def test_whispers_number_format_is_the_setting(store: ModelStore, record: Constructions, compute_type: str) -> None:
    """`stt.compute_type` reaches CTranslate2, on the GPU."""
    start("stt", **GPU, compute_type=compute_type, first_pass_model="")
    assert (record.models[0]["device"], record.models[0]["compute_type"]) == ("cuda", compute_type)
    assert not record.sessions


def test_whisper_without_a_gpu_is_int8(store: ModelStore, record: Constructions) -> None:
    """By default Whisper is loaded for the CPU in int8."""
    start("stt")
    assert (record.models[0]["device"], record.models[0]["compute_type"]) == ("cpu", "int8")


def test_the_embedder_is_on_the_gpu(store: ModelStore, record: Constructions) -> None:
    """The answer cache's embedding model is loaded for CUDA, in its own number format."""
    start("answer_cache", **GPU)
    (model,) = record.models
    assert (model["device"], model["compute_type"]) == ("cuda", "int8")


@pytest.mark.parametrize(
    ("changes", "layers", "may_move"), [(GPU, 999, False), ({**GPU, "gpu_layers": 10}, 10, False), ({}, 0, True)]
)
def test_the_language_models_layers_are_on_the_gpu(
    store: ModelStore, record: Constructions, *, changes: dict[str, Any], layers: int, may_move: bool
) -> None:
    """All layers, or `gpu_layers` of them, are on the GPU, and llama.cpp may not move some to the CPU by itself."""
    start("llm", **changes)
    (parameters,) = record.parameters
    assert (parameters.n_gpu_layers, parameters.fit_params) == (layers, may_move)


def test_a_silent_fall_back_to_the_cpu_is_an_error(store: ModelStore, record: Constructions) -> None:
    """onnxruntime computes on the CPU if it cannot load CUDA, with only a log line; the replica refuses to start."""
    record.cuda_loads = False
    with pytest.raises(ConfigError, match="cannot load its CUDA provider") as refused:
        start("turn_detector", **GPU)
    assert refused.value.field == "args.turn_detector.device"


@pytest.mark.skipif(bool(visible_gpus()), reason="needs a machine without a GPU")
@pytest.mark.parametrize("section", STAGES)
def test_every_stage_refuses_to_start_without_its_gpu(store: ModelStore, section: str) -> None:
    """A replica that reserves a GPU which CUDA does not show it ends with the setting to change."""
    with pytest.raises(ConfigError, match="CUDA shows no GPU") as refused:
        start(section, **GPU)
    assert refused.value.field == f"args.{section}.resources.num_gpus"


@pytest.mark.parametrize("section", ["stt", "llm"])
def test_a_share_that_is_too_small_is_refused_before_loading(
    store: ModelStore, record: Constructions, section: str
) -> None:
    """A hundredth of 8 GB is less than the model needs: the error names the share, and nothing is loaded."""
    with pytest.raises(ConfigError, match=r"0\.01 of the GPU's 8\.0 GB is less\. Set it to 0\.\d+ or more") as refused:
        start(section, resources={"num_gpus": 0.01})
    assert refused.value.field == f"args.{section}.resources.num_gpus"
    assert not record.models + record.parameters
