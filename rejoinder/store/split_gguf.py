"""The form `llama-cpp`: the same four-bit weights, laid out for the CPU's fast path.

    python -m rejoinder.store.split_gguf FORM SOURCE DESTINATION

llama.cpp interleaves the rows of Q4_0 tensors when it loads them, and multiplies eight rows at once. Q4_1, in which
each block of 32 weights has an offset beside its scale, it multiplies row by row, in half as much again of the time.
But a Q4_1 block is a Q4_0 block and an offset, with the same scale and the very same bits:

    scale * q + offset  =  scale * (q - 8)  +  (offset + 8 * scale)

What the second term adds to a product is the offset of each block times the sum of the inputs in that block: a matrix
product of low rank, and low-rank terms beside a weight are what llama.cpp's adapters (LoRA) are. So a model becomes a
Q4_0 file and an adapter, with no weight quantized anew. The offsets are rounded to float16, as they were before.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt

BLOCK = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType.Q4_1][0]
ADAPTER = "offsets.adapter"

Bytes = npt.NDArray[np.uint8]
Half = npt.NDArray[np.float16]


def main(source: Path, destination: Path) -> None:
    """Write the split model, or one without Q4_1 tensors as it is; the adapter only if there are offsets."""
    path = next(source.glob("*.gguf"), None)
    if path is None:
        raise SystemExit(f"{source} holds no GGUF file")
    destination.mkdir(parents=True)
    reader = gguf.GGUFReader(path)
    model = _copied_fields(reader, destination / path.name)
    adapter = gguf.GGUFWriter(destination / ADAPTER, _text(reader, "general.architecture"))
    adapter.add_type(gguf.GGUFType.ADAPTER)
    adapter.add_string(gguf.Keys.Adapter.TYPE, "lora")
    adapter.add_float32(gguf.Keys.Adapter.LORA_ALPHA, 0.0)  # none: the terms count as they are
    split = 0
    for tensor in reader.tensors:
        if tensor.tensor_type is not gguf.GGMLQuantizationType.Q4_1:
            model.add_tensor(tensor.name, np.array(tensor.data), raw_dtype=tensor.tensor_type)
            continue
        blocks, offsets = split_blocks(np.array(tensor.data))
        model.add_tensor(tensor.name, blocks, raw_dtype=gguf.GGMLQuantizationType.Q4_0)
        adapter.add_tensor(f"{tensor.name}.lora_a", block_sums(offsets.shape[1]))
        adapter.add_tensor(f"{tensor.name}.lora_b", offsets)
        split += 1
    for writer in (model, adapter) if split else (model,):
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


def split_blocks(data: Bytes) -> tuple[Bytes, Half]:
    """Q4_1 rows (float16 scale, float16 offset, 16 bytes a block) as Q4_0 rows, and what is missing of each block."""
    rows = len(data)
    blocks = data.reshape(rows, -1, 4 + BLOCK // 2)
    scales, offsets = (
        np.ascontiguousarray(blocks[:, :, at : at + 2]).view(np.float16)[..., 0].astype(np.float32) for at in (0, 2)
    )
    kept = np.concatenate([blocks[:, :, :2], blocks[:, :, 4:]], axis=2)
    return kept.reshape(rows, -1), (offsets + 8 * scales).astype(np.float16)


def block_sums(blocks: int) -> Half:
    """The matrix that adds up the inputs of each block."""
    return np.repeat(np.eye(blocks, dtype=np.float16), BLOCK, axis=1)


def _copied_fields(reader: Any, path: Path) -> gguf.GGUFWriter:
    architecture = gguf.Keys.General.ARCHITECTURE
    writer = gguf.GGUFWriter(path, _text(reader, architecture))
    for key, field in reader.fields.items():
        if key.startswith("GGUF.") or key == architecture:
            continue
        kind = field.types[0]
        of = field.types[-1] if kind is gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(key, field.contents(), kind, sub_type=of)
    return writer


def _text(reader: Any, key: str) -> str:
    return str(reader.fields[key].contents())


if __name__ == "__main__":
    main(Path(sys.argv[2]), Path(sys.argv[3]))
