"""Read Silero's weights from its ONNX file. The graph has branches for 16 and 8 kHz; the 16 kHz branch is used."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from deployments.engines.onnx import PULL
from rejoinder.core.audio.pcm import Samples
from rejoinder.core.errors import ModelError

INPUTS = ("input", "state", "sr")
HIDDEN = 128


@dataclass(frozen=True, slots=True)
class SileroWeights:
    """Silero's weights, as matrices (inputs, outputs). A convolution's input rows are ordered by tap, then by channel.

    basis     256 -> 258     the short-time Fourier transform: 129 real parts, 129 imaginary ones
    first     3 x 129 -> 128
    second    3 x 128 -> 64
    third     2 x 64 -> 64   two of the three taps: the other one only reads padding
    fourth    64 -> 128      the middle tap only, for the same reason
    cell      256 -> 512     the LSTM's input and recurrent weights; gates in the order input, forget, cell, output
    """

    basis: Samples
    first: Samples
    first_bias: Samples
    second: Samples
    second_bias: Samples
    third: Samples
    third_bias: Samples
    fourth: Samples
    fourth_bias: Samples
    cell: Samples
    cell_bias: Samples
    last: Samples
    last_bias: Samples


def read_weights(file: Path) -> SileroWeights:
    """Return the weights in `file`; raise ModelError if it is not Silero's ONNX model."""
    try:
        onnx.checker.check_model(str(file))
    except onnx.checker.ValidationError as error:
        raise ModelError("is not a readable ONNX model.", PULL, file=str(file), found=str(error)) from error
    graph = onnx.load(file).graph
    found = tuple(entry.name for entry in graph.input)
    if found != INPUTS:
        message = "is not the Silero ONNX model."
        raise ModelError(message, PULL, file=str(file), expected=f"inputs {INPUTS}", found=f"inputs {found}")
    by_name = dict(_constants(_wideband(graph)))
    try:
        return _arranged(by_name)
    except KeyError as error:
        raise ModelError("lacks a weight.", PULL, file=str(file), expected=str(error), found="none") from error


def _arranged(named: dict[str, npt.NDArray[np.float32]]) -> SileroWeights:
    convolutions = [named[f"encoder.{layer}.reparam_conv.weight"] for layer in range(4)]
    biases = [named[f"encoder.{layer}.reparam_conv.bias"] for layer in range(4)]
    recurrent = np.concatenate([named["decoder.rnn.weight_ih"], named["decoder.rnn.weight_hh"]], axis=1)
    return SileroWeights(
        basis=np.ascontiguousarray(named["stft.forward_basis_buffer"][:, 0].T),
        first=_taps(convolutions[0]),
        first_bias=biases[0],
        second=_taps(convolutions[1]),
        second_bias=biases[1],
        third=_taps(convolutions[2][:, :, 1:]),
        third_bias=biases[2],
        fourth=_taps(convolutions[3][:, :, 1:2]),
        fourth_bias=biases[3],
        cell=np.ascontiguousarray(recurrent.T),
        cell_bias=named["decoder.rnn.bias_ih"] + named["decoder.rnn.bias_hh"],
        last=np.ascontiguousarray(named["decoder.decoder.2.weight"][0, :, 0]),
        last_bias=named["decoder.decoder.2.bias"],
    )


def _taps(weight: npt.NDArray[np.float32]) -> Samples:
    """Reorder weights (outputs, channels, taps) to (taps x channels, outputs)."""
    return np.ascontiguousarray(weight.transpose(2, 1, 0).reshape(-1, weight.shape[0]))


def _wideband(graph: onnx.GraphProto) -> onnx.GraphProto:
    """Return the 16 kHz branch of Silero's graph, or the graph itself if it has no branches."""
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.name == "then_branch":
                return attribute.g
    return graph


def _constants(graph: onnx.GraphProto) -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
    """Yield the name and the value of every constant of the graph. The name lacks the prefix that the exporter adds."""
    for node in graph.node:
        if node.op_type == "Constant":
            name = node.output[0].rsplit("__", 1)[-1].lstrip("/")
            yield name, np.asarray(numpy_helper.to_array(node.attribute[0].t))
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _constants(attribute.g)
