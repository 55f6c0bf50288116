"""A split model is the same model: four-bit blocks without offsets, and the offsets beside them."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoinder.store.split_gguf import ADAPTER, block_sums, main, split_blocks

Q4_0, Q4_1, Q8_0 = (gguf.GGMLQuantizationType[name] for name in ("Q4_0", "Q4_1", "Q8_0"))


def weights(rows: int, columns: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0.02, 0.1, (rows, columns)).astype(np.float32)


def write_model(folder: Path, tensors: dict[str, gguf.GGMLQuantizationType]) -> gguf.GGUFReader:
    folder.mkdir()
    writer = gguf.GGUFWriter(folder / "m.gguf", "llama")
    writer.add_context_length(77)
    writer.add_token_list(["a", "b"])
    for number, (name, kind) in enumerate(tensors.items()):
        writer.add_tensor(name, gguf.quants.quantize(weights(8, 64, number), kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return gguf.GGUFReader(folder / "m.gguf")


@given(seed=st.integers(0, 2**32 - 1), rows=st.integers(1, 4), blocks=st.integers(1, 5))
def test_both_parts_together_are_the_weights(seed: int, rows: int, blocks: int) -> None:
    """Blocks without their offsets, plus offsets times block sums, are the Q4_1 weights but for float16's rounding."""
    data = gguf.quants.quantize(weights(rows, blocks * 32, seed), Q4_1)
    kept, offsets = split_blocks(data)
    together = gguf.quants.dequantize(kept, Q4_0) + offsets.astype(np.float32) @ block_sums(blocks).astype(np.float32)
    expected = gguf.quants.dequantize(data, Q4_1)
    assert together == pytest.approx(expected, abs=2.0**-10 * float(np.abs(offsets).max()) + 1e-6)


def test_a_model_is_split_and_all_else_is_kept(tmp_path: Path) -> None:
    """Only Q4_1 tensors change, each with its two adapter tensors; others and the fields are byte for byte the same."""
    before = write_model(tmp_path / "from", {"blk.0.attn_q.weight": Q4_1, "token_embd.weight": Q8_0})
    main(tmp_path / "from", tmp_path / "to")
    after = gguf.GGUFReader(tmp_path / "to" / "m.gguf")
    assert {tensor.name: tensor.tensor_type for tensor in after.tensors} == {
        "blk.0.attn_q.weight": Q4_0,
        "token_embd.weight": Q8_0,
    }
    kept = {tensor.name: tensor.data for tensor in before.tensors}["token_embd.weight"]
    assert np.array_equal({tensor.name: tensor.data for tensor in after.tensors}["token_embd.weight"], kept)
    for field in ("llama.context_length", "tokenizer.ggml.tokens"):
        assert after.fields[field].contents() == before.fields[field].contents()
    adapter = gguf.GGUFReader(tmp_path / "to" / ADAPTER)
    assert [tensor.name for tensor in adapter.tensors] == [
        "blk.0.attn_q.weight.lora_a",
        "blk.0.attn_q.weight.lora_b",
    ]
    assert adapter.fields["adapter.type"].contents() == "lora"


def test_a_model_without_offsets_has_no_adapter(tmp_path: Path) -> None:
    """Nothing to split: the tensors are those of the source, and no adapter is written."""
    before = write_model(tmp_path / "from", {"blk.0.attn_q.weight": Q4_0})
    main(tmp_path / "from", tmp_path / "to")
    assert [path.name for path in (tmp_path / "to").iterdir()] == ["m.gguf"]
    after = gguf.GGUFReader(tmp_path / "to" / "m.gguf")
    assert np.array_equal(after.tensors[0].data, before.tensors[0].data)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    """It says what is missing, and writes nothing."""
    with pytest.raises(SystemExit, match="no GGUF file"):
        main(tmp_path, tmp_path / "to")
    assert not (tmp_path / "to").exists()
