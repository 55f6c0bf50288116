"""Tests of converting a stored model into another form: once, by one process at a time, completely or not at all."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
import transformers

from rejoinder.core.errors import ModelError
from rejoinder.store.conversion import conversion_folder, convert_in_subprocess
from rejoinder.store.convert_model import llama_tensors
from rejoinder.store.manifest import ConversionForm, Manifest
from rejoinder.store.model_store import ModelStore
from tests.store.fakes import CONTENT, GivesFiles, Recorder, all_files, model

FILES = {"w.gguf": CONTENT}


class FakeConverter:
    """Converter that writes one file with the form and the names of its source files.

    It records the form of each conversion in `calls`, and calls `during` when the file is written.
    """

    def __init__(self, during: Callable[[], None] = lambda: None) -> None:
        self.calls: list[ConversionForm] = []
        self._during = during

    def __call__(self, form: ConversionForm, source: Path, destination: Path) -> None:
        self.calls.append(form)
        destination.mkdir()
        (destination / "model.bin").write_text(f"{form} from {sorted(path.name for path in source.iterdir())}")
        self._during()


def store(directory: Path, converter: FakeConverter, prepare: tuple[ConversionForm, ...] = ()) -> ModelStore:
    models = Manifest(models={"m": model(FILES, prepare=prepare)})
    filled = ModelStore(directory, models, GivesFiles(FILES), converter)
    filled.pull()
    return filled


def test_a_conversion_is_made_once(tmp_path: Path) -> None:
    """The first call of `converted` converts the stored files, the second returns the same folder."""
    converter = FakeConverter()
    filled = store(tmp_path, converter)
    first = filled.converted("m", "ct2-int8")
    assert filled.converted("m", "ct2-int8") == first
    assert (first / "model.bin").read_text() == "ct2-int8 from ['.verified.json', 'w.gguf']"
    assert converter.calls == [ConversionForm.CT2_INT8]
    assert [path.name for path in (tmp_path / "converted" / "m").iterdir()] == [first.name]


def test_a_pull_prepares_what_the_manifest_names(tmp_path: Path) -> None:
    """A pull also makes the converted forms that the manifest lists in `prepare`. A second pull converts nothing."""
    converter = FakeConverter()
    filled = store(tmp_path, converter, prepare=(ConversionForm.CT2_INT8,))
    recorder = Recorder()
    filled.pull(progress=recorder)
    filled.converted("m", "ct2-int8")
    assert converter.calls == [ConversionForm.CT2_INT8]
    assert recorder.outcomes == {"m": "already complete"}
    assert filled.verify() == {"m": None}


def test_a_pull_can_make_another_form(tmp_path: Path) -> None:
    """A pull with `form` makes that converted form instead of those in `prepare`. An unknown form is refused."""
    converter = FakeConverter()
    filled = store(tmp_path, converter)
    prepared = ModelStore(
        tmp_path, Manifest(models={"m": model(FILES, prepare=(ConversionForm.CT2_INT8,))}), filled.fetcher, converter
    )
    prepared.pull(["m"], form="hf")
    assert converter.calls == [ConversionForm.HF]
    assert prepared.converted("m", "hf").is_dir()
    assert converter.calls == [ConversionForm.HF]
    with pytest.raises(ModelError, match="no such form"):
        prepared.pull(["m"], form="onnx")


def test_a_damaged_conversion_is_made_again(tmp_path: Path) -> None:
    """If a converted file was changed, `verify` reports it and the next use converts the model again."""
    converter = FakeConverter()
    filled = store(tmp_path, converter, prepare=(ConversionForm.CT2_INT8,))
    folder = filled.converted("m", "ct2-int8")
    (folder / "model.bin").write_text("damaged")
    assert "m/ct2-int8/model.bin" in str(filled.verify()["m"])
    assert (filled.converted("m", "ct2-int8") / "model.bin").read_text() != "damaged"


def test_verify_reports_a_missing_conversion(tmp_path: Path) -> None:
    """If a converted form is missing, `verify` reports it with the command that makes it."""
    filled = store(tmp_path, FakeConverter(), prepare=(ConversionForm.CT2_INT8,))
    folder = filled.converted("m", "ct2-int8")
    (folder / "model.bin").unlink()
    (folder / ".verified.json").unlink()
    assert "has not been converted to ct2-int8" in str(filled.verify()["m"])
    assert "rejoinder models pull m" in str(filled.verify()["m"])


def test_a_failed_conversion_leaves_nothing(tmp_path: Path) -> None:
    """If the converter fails, no file is left that a later call could use as its result."""

    def fail() -> None:
        raise ModelError("conversion failed.")

    filled = store(tmp_path, FakeConverter(fail))
    before = all_files(tmp_path)
    with pytest.raises(ModelError, match="conversion failed"):
        filled.converted("m", "ct2-int8")
    assert all_files(tmp_path) == before


def test_two_at_once_convert_once(tmp_path: Path) -> None:
    """If two callers need the same converted form at once, the second waits for the first and uses its result."""
    first_is_converting, second_is_waiting = threading.Event(), threading.Event()

    def hold() -> None:
        first_is_converting.set()
        if threading.current_thread() is not first:
            second_is_waiting.set()
        second_is_waiting.wait()

    converter = FakeConverter(hold)
    filled = store(tmp_path, converter)
    recorder = Recorder(lambda activity: second_is_waiting.set() if activity.startswith("waiting") else None)
    results: list[Path] = []
    first = threading.Thread(target=lambda: results.append(filled.converted("m", "hf")))
    first.start()
    first_is_converting.wait()
    results.append(filled.converted("m", "hf", recorder))
    first.join()
    assert converter.calls == [ConversionForm.HF]
    assert results[0] == results[1]
    assert "waiting for another process that works on this model" in recorder.activities


def test_the_key_covers_form_and_source() -> None:
    """The folder of a converted form differs for every form and for models with different weights."""
    other = model({"w.gguf": CONTENT[::-1]})
    same = model(FILES)
    folders = {conversion_folder("m", source, form) for source in (same, other) for form in ConversionForm}
    assert len(folders) == 2 * len(ConversionForm)
    assert conversion_folder("m", model(FILES), ConversionForm.HF) == conversion_folder("m", same, ConversionForm.HF)


def test_an_unknown_form_is_refused(tmp_path: Path) -> None:
    """An unknown form is refused, and the error lists the known forms."""
    with pytest.raises(ModelError, match=r"expected: hf, ct2-int8, ct2-float32\. found: awq"):
        store(tmp_path, FakeConverter()).converted("m", "awq")


def test_an_invalid_gguf_fails_with_the_converters_reason(tmp_path: Path) -> None:
    """If the conversion of an invalid GGUF file fails, the error contains the last output line of the converter."""
    (tmp_path / "w.gguf").write_bytes(CONTENT)
    with pytest.raises(ModelError, match="conversion to hf failed") as caught:
        convert_in_subprocess(ConversionForm.HF, tmp_path, tmp_path / "out")
    assert "Error" in caught.value.found
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("form", "reason"),
    [
        (ConversionForm.HF, "nothing else can be converted"),
        (ConversionForm.CT2_INT8, "from a transformers folder only"),
    ],
)
def test_a_model_in_another_format_cannot_be_converted(tmp_path: Path, form: ConversionForm, reason: str) -> None:
    """A model in a format that cannot be converted is refused, and the error names the format that is needed."""
    with pytest.raises(ModelError, match=reason):
        convert_in_subprocess(form, tmp_path, tmp_path / "out")


def _llama_cpp_order(rows: torch.Tensor, heads: int) -> torch.Tensor:
    """Return the rows of a query or key matrix, which are in the order of transformers, in the order of llama.cpp.

    In each head, row 2i of the result is row i, and row 2i+1 is row i of the second half.
    """
    halves = [head.chunk(2) for head in rows.chunk(heads)]
    return torch.cat([torch.stack((low, high), dim=1).flatten(0, 1) for low, high in halves])


def test_gguf_tensors_get_transformers_names(tmp_path: Path) -> None:
    """The tensors of a Llama model in a GGUF file are read with the names and row order of transformers.

    The file has llama.cpp's names and row order.
    """
    config = transformers.LlamaConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=16, tie_word_embeddings=False,
    )  # fmt: skip
    original = transformers.LlamaForCausalLM(config).state_dict()
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    writer = gguf.GGUFWriter(tmp_path / "w.gguf", "llama")
    for name, tensor in original.items():
        heads = {"q_proj": 4, "k_proj": 2}.get(name.split(".")[-2])
        stored = _llama_cpp_order(tensor, heads) if heads else tensor
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight",)), stored.numpy().astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    read = llama_tensors(gguf.GGUFReader(tmp_path / "w.gguf"), config)
    assert read.keys() == original.keys()
    assert all(torch.equal(read[name], original[name]) for name in original)
