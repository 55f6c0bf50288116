"""Sentence embeddings by all-MiniLM-L6-v2, through CTranslate2.

A sentence's vector is the mean of the last hidden states, scaled to length 1, as sentence-transformers computes it.
"""

from __future__ import annotations

from pathlib import Path

import ctranslate2
import numpy as np
from tokenizers import Tokenizer

from deployments.engines.device import CPU, EngineDevice
from rejoinder.core.errors import ModelError
from rejoinder.core.reply.answer_cache import Vector

DIMENSIONS = 384
# The model's own limit (sentence_bert_config.json). Longer texts are truncated.
LONGEST_TOKENS = 256
PULL = "Run `rejoinder models pull`, which also converts it."


class MiniLm:
    """The MiniLM model in memory. Call it from one thread."""

    def __init__(
        self, directory: Path, threads: int = 1, compute_type: str = "int8", device: EngineDevice = CPU
    ) -> None:
        """Load the model.

        Args:
            directory: Folder that contains the model in CTranslate2's form, with tokenizer.json.
            threads: Threads of one inference.
            compute_type: Precision of the weights, "int8" or "float32".
            device: Where to compute.

        Raises:
            ModelError: `directory` does not contain such a model.
        """
        self.name = f"all-minilm-l6-v2 {compute_type}"
        try:
            self._encoder = ctranslate2.Encoder(
                str(directory), device=device.name, compute_type=compute_type, intra_threads=threads
            )
        except (RuntimeError, ValueError) as error:
            raise ModelError("is not a CTranslate2 encoder.", PULL, file=str(directory), found=str(error)) from error
        tokens = directory / "tokenizer.json"
        if not tokens.is_file():
            raise ModelError("has no tokenizer.", PULL, file=str(tokens), found="no file")
        self._tokenizer = Tokenizer.from_file(str(tokens))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(LONGEST_TOKENS)

    def embed(self, text: str) -> Vector:
        """Return the embedding of `text`: a vector of 384 numbers, scaled to length 1.

        The dot product of two embeddings is their cosine similarity.
        """
        output = self._encoder.forward_batch([self._tokenizer.encode(text).ids])
        mean = np.asarray(output.last_hidden_state, np.float32)[0].mean(axis=0)
        vector: Vector = mean / np.linalg.norm(mean)
        return vector

    def warm_up(self) -> None:
        """Embed two sentences, because the first inference is slow."""
        for text in ("Hello.", "What time do you open on Sunday?"):
            self.embed(text)
