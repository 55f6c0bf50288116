"""Opening an ONNX model: which file, how many threads, and one clear error."""

from __future__ import annotations

from pathlib import Path

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


def open_session(file: Path, threads: int, inputs: tuple[str, ...]) -> onnxruntime.InferenceSession:
    """A CPU session of `threads` threads; raises ModelError if `file` is no ONNX model with these `inputs`.

    Threads do not spin between calls: a spinning pool steals the core from the other engines of a small machine.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = onnxruntime.InferenceSession(str(file), sess_options=options, providers=["CPUExecutionProvider"])
    except _LOAD_ERRORS as error:
        raise ModelError("is not a readable ONNX model.", PULL, file=str(file), found=str(error)) from error
    found = tuple(entry.name for entry in session.get_inputs())
    if found != inputs:
        message = "is an ONNX model of another kind."
        raise ModelError(message, PULL, file=str(file), expected=f"inputs {inputs}", found=f"inputs {found}")
    return session
