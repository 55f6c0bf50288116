"""Open ONNX models for CPU inference, with one error type for every fault."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from rejoinder.core.errors import ModelError

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


def open_session(file: Path, threads: int, inputs: tuple[str, ...] | None) -> onnxruntime.InferenceSession:
    """Open a CPU session with `threads` threads.

    Raises ModelError if `file` is not an ONNX model, or if its input names are not `inputs` (None: any).
    """
    try:
        session = _session(str(file), threads)
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


def open_part(model: onnx.ModelProto, threads: int) -> onnxruntime.InferenceSession:
    """Open a CPU session with `threads` threads for `model`, which may be a part cut from a larger model."""
    return _session(model.SerializeToString(), threads)


def _session(model: str | bytes, threads: int) -> onnxruntime.InferenceSession:
    """Open a CPU session.

    Its threads sleep between calls, because threads that spin would take cores from other engines.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(model, sess_options=options, providers=["CPUExecutionProvider"])
