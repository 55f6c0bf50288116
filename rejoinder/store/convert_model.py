"""Convert one model: `python -m rejoinder.store.convert_model FORM SOURCE DESTINATION`.

- `hf` makes a transformers folder: it dequantizes a Llama-architecture GGUF, or copies a transformers folder.
- `ct2-int8` and `ct2-float32` make a CTranslate2 folder from a transformers folder.

transformers reads the configuration and the tokenizer of a GGUF. The tensors are mapped here, because transformers' own
GGUF weight loader requires the package accelerate. For SmolLM2-135M-Instruct this mapping
and that loader give bit-identical weights (transformers 5.23).
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import ctranslate2.converters
import gguf
import numpy as np
import torch
import transformers
from numpy.typing import NDArray

from rejoinder.store.manifest import ConversionForm

QUANTIZATION = {ConversionForm.CT2_INT8: "int8", ConversionForm.CT2_FLOAT32: "float32"}
TRANSFORMERS_WEIGHTS = "model.safetensors"
# The CTranslate2 converter copies these files unchanged, because the CTranslate2 engine reads tokenizer.json.
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")


def main(form: ConversionForm, source: Path, destination: Path) -> None:
    """Write `form` of the model in `source` to `destination`; exit with a message if that is impossible."""
    in_transformers_format = (source / TRANSFORMERS_WEIGHTS).is_file()
    if form is ConversionForm.HF and not in_transformers_format:
        _gguf_to_transformers(source, destination)
    elif not in_transformers_format:
        raise SystemExit(f"{source} has no {TRANSFORMERS_WEIGHTS}: {form} is made from a transformers folder only")
    elif form is ConversionForm.HF:
        shutil.copytree(source, destination, ignore=shutil.ignore_patterns(".*"))
    else:
        present = [name for name in TOKENIZER_FILES if (source / name).is_file()]
        converter = ctranslate2.converters.TransformersConverter(str(source), copy_files=present)
        converter.convert(str(destination), quantization=QUANTIZATION[form])


def _gguf_to_transformers(source: Path, destination: Path) -> None:
    path = next(source.glob("*.gguf"), None)
    if path is None:
        raise SystemExit(
            f"{source} contains neither a GGUF file nor {TRANSFORMERS_WEIGHTS}: nothing else can be converted"
        )
    config = transformers.AutoConfig.from_pretrained(source, gguf_file=path.name)
    if config.model_type != "llama":
        raise SystemExit(f"{path.name} has architecture {config.model_type}; only llama can be converted")
    with torch.device("meta"):
        model = transformers.LlamaForCausalLM(config)
    model.load_state_dict(llama_tensors(gguf.GGUFReader(path), config), strict=False, assign=True)
    model.tie_weights()
    missing = [name for name, parameter in model.named_parameters() if parameter.is_meta]
    if missing:
        raise SystemExit(f"{path.name} lacks the tensors of {', '.join(missing)}")
    model.save_pretrained(destination)
    transformers.AutoTokenizer.from_pretrained(source, gguf_file=path.name).save_pretrained(destination)


def llama_tensors(reader: Any, config: Any) -> dict[str, Any]:
    """Return the tensors of a Llama GGUF as float32, under transformers' names.

    Args:
        reader: A `gguf.GGUFReader`.
        config: The model's transformers configuration.
    """
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    with torch.device("meta"):
        state = transformers.LlamaForCausalLM(config).state_dict()
    by_gguf_name = {names.get_name(name, try_suffixes=(".weight",)): name for name in state}
    rotated = {".attn_q.": config.num_attention_heads, ".attn_k.": config.num_key_value_heads}
    tensors = {}
    for tensor in reader.tensors:
        name = by_gguf_name.get(tensor.name)
        if name is None:
            continue
        weights = gguf.dequantize(tensor.data, tensor.tensor_type)
        for part, heads in rotated.items():
            if part in tensor.name:
                weights = _unrotate(weights, heads)
        tensors[name] = torch.from_numpy(np.array(weights, dtype=np.float32))
    return tensors


def _unrotate(weights: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """Return query or key weights with the rows in transformers' order.

    llama.cpp interleaves the two halves of the rows of each attention head. `heads` is the number of heads.
    """
    rows = weights.shape[0]
    return weights.reshape(heads, rows // heads // 2, 2, -1).swapaxes(1, 2).reshape(rows, -1)


if __name__ == "__main__":
    main(ConversionForm(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))
