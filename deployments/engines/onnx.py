"""Opening an ONNX model: which file, how many threads, and one clear error."""

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
    """`path` itself, or the one .onnx file in the folder `path`; raises ModelError if there is not exactly one."""
    if path.is_file():
        return path
    found = sorted(path.glob("*.onnx"))
    if len(found) != 1:
        names = ", ".join(file.name for file in found) or "none"
        raise ModelError("no model.", PULL, file=str(path), expected="one .onnx file", found=names)
    return found[0]


def open_session(file: Path, threads: int, inputs: tuple[str, ...] | None) -> onnxruntime.InferenceSession:
    """A CPU session of `threads` threads; raises ModelError if `file` is no ONNX model, or has not these `inputs`."""
    try:
        session = _session(str(file), threads)
    except _LOAD_ERRORS as error:
        raise ModelError("is not a readable ONNX model.", PULL, file=str(file), found=str(error)) from error
    found = tuple(entry.name for entry in session.get_inputs())
    if inputs is not None and found != inputs:
        message = "is an ONNX model of another kind."
        raise ModelError(message, PULL, file=str(file), expected=f"inputs {inputs}", found=f"inputs {found}")
    return session


def read_model(file: Path, inputs: tuple[str, ...]) -> onnx.ModelProto:
    """The model as data, to be taken apart; raises ModelError if `file` is no ONNX model with these `inputs`."""
    open_session(file, 1, inputs)
    return onnx.load(str(file))


def open_part(model: onnx.ModelProto, threads: int) -> onnxruntime.InferenceSession:
    """A session of a part of a model."""
    return _session(model.SerializeToString(), threads)


def _session(model: str | bytes, threads: int) -> onnxruntime.InferenceSession:
    """Threads do not spin between calls: a spinning pool steals the core from the other engines of a small machine."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(model, sess_options=options, providers=["CPUExecutionProvider"])
