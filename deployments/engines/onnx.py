"""Open ONNX models for inference on the CPU or a GPU, with one error type for every fault of a file."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from deployments.engines.device import CPU, CUDA_PROVIDER, EngineDevice
from rejoinder.core.errors import ConfigError, ModelError

_LOAD_ERRORS = (
    ort_errors.Fail,
    ort_errors.InvalidArgument,
    ort_errors.InvalidGraph,
    ort_errors.InvalidProtobuf,
    ort_errors.NoSuchFile,
    ort_errors.NotImplemented,
    ort_errors.RuntimeException,
)
PULL = "Run `rejoinder models verify`, then `rejoinder models pull`."


def model_file(path: Path) -> Path:
    """Return `path` if it is a file, else the only .onnx file in the folder `path`.

    Raises ModelError unless there is exactly one.
    """
    if path.is_file():
        return path
    found = sorted(path.glob("*.onnx"))
    if len(found) != 1:
        names = ", ".join(file.name for file in found) or "none"
        raise ModelError("does not hold one model.", PULL, file=str(path), expected="one .onnx file", found=names)
    return found[0]


def open_session(
    file: Path, threads: int, inputs: tuple[str, ...] | None, device: EngineDevice = CPU
) -> onnxruntime.InferenceSession:
    """Open a session with `threads` CPU threads on `device`.

    Raises:
        ModelError: `file` is not an ONNX model, or its input names are not `inputs` (None: any).
        ConfigError: onnxruntime cannot use the GPU.
    """
    try:
        session = _session(str(file), threads, device)
    except _LOAD_ERRORS as error:
        raise ModelError("is not a readable ONNX model.", PULL, file=str(file), found=str(error)) from error
    found = tuple(entry.name for entry in session.get_inputs())
    if inputs is not None and found != inputs:
        message = "is a different ONNX model."
        raise ModelError(message, PULL, file=str(file), expected=f"inputs {inputs}", found=f"inputs {found}")
    return session


def read_model(file: Path, inputs: tuple[str, ...]) -> onnx.ModelProto:
    """Return the model's graph; raise ModelError if `file` is not an ONNX model with these input names."""
    open_session(file, 1, inputs)
    return onnx.load(str(file))


def open_part(model: onnx.ModelProto, threads: int, device: EngineDevice = CPU) -> onnxruntime.InferenceSession:
    """Open a session with `threads` CPU threads on `device` for `model`, which may be a part cut from a larger model.

    Raises ConfigError if onnxruntime cannot use the GPU.
    """
    return _session(model.SerializeToString(), threads, device)


def _session(model: str | bytes, threads: int, device: EngineDevice) -> onnxruntime.InferenceSession:
    """Open a session.

    Its CPU threads sleep between calls, because threads that spin would take cores from other engines. On a GPU, the
    CPU computes the operators for which onnxruntime has no CUDA kernel.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    providers: list[str | tuple[str, dict[str, object]]] = ["CPUExecutionProvider"]
    if device.name == "cuda":
        onnxruntime.preload_dlls()  # finds CUDA and cuDNN in NVIDIA's Python packages
        limits = {"device_id": 0, "gpu_mem_limit": device.memory_bytes, "arena_extend_strategy": "kSameAsRequested"}
        providers.insert(0, (CUDA_PROVIDER, limits))
    session = onnxruntime.InferenceSession(model, sess_options=options, providers=providers)
    if device.name == "cuda" and CUDA_PROVIDER not in session.get_providers():
        # onnxruntime only logs that a library is missing, and then computes on the CPU.
        remedy = "Install the CUDA and cuDNN that this onnxruntime-gpu needs (docs/how-to/gpus-and-vllm.md)."
        raise ConfigError("onnxruntime cannot load its CUDA provider.", remedy, field=device.field)
    if device.name == "cuda":
        session.disable_fallback()  # which would answer a failure of the GPU by computing on the CPU from then on
    return session
