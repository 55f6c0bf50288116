"""llama.cpp on the 4-bit GGUF agrees with transformers on the same weights in float32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import xllamacpp
from transformers import AutoModelForCausalLM, AutoTokenizer

from deployments.engines.llm.llama_cpp import LlamaCppOptions, parameters_of
from rejoinder.store.model_store import ModelStore
from tests.deployments.engines.prompts import QUESTIONS, SYSTEM

pytestmark = [pytest.mark.models, pytest.mark.timeout(300)]

MODEL = "smollm2-135m-instruct"
TOKENS = 8
LEAST_AGREEMENT = 0.88


class Reference:
    """Prompts, and the greedy answers that transformers gives with dequantized float32 weights."""

    def __init__(self, folder: Path) -> None:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        self.end = {tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<|endoftext|>")}
        self.prompts: list[list[int]] = []
        for question in QUESTIONS:
            messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": question}]
            text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
            self.prompts.append(tokenizer.encode(text, add_special_tokens=False))
        self.answers = [greedy(model, prompt) for prompt in self.prompts]


def greedy(model: Any, prompt: list[int]) -> list[int]:
    """Return the token ids of a greedy answer: the TOKENS tokens that follow the prompt, each the most likely."""
    output = model.generate(torch.tensor([prompt]), max_new_tokens=TOKENS, do_sample=False)
    answer: list[int] = output[0, len(prompt) :].tolist()
    return answer


@pytest.fixture(scope="module")
def reference(store: ModelStore) -> Reference:
    """Return prompts and their greedy answers by the model in float32, computed with transformers."""
    return Reference(store.converted(MODEL, "hf"))


def test_four_bits_agree_token_by_token(reference: Reference, store: ModelStore) -> None:
    """After the same beginning of the answer, at least 88% of llama.cpp's next tokens equal the float32 model's."""
    file = next(store.path(MODEL).glob("*.gguf"))
    server = xllamacpp.Server(parameters_of(file, LlamaCppOptions(slots=1, context_tokens=2048)))
    agreed = total = 0
    for prompt, answer in zip(reference.prompts, reference.answers, strict=True):
        for position, expected in enumerate(answer):
            body = {"prompt": prompt + answer[:position], "max_tokens": 1, "temperature": 0, "logprobs": 1}
            (choice,) = server.handle_completions(body)["choices"]
            found = [entry["id"] for entry in choice["logprobs"]["content"]] if choice["logprobs"] else []
            ended = choice["finish_reason"] == "stop" and expected in reference.end
            agreed += found == [expected] or ended
            total += 1
    print(f"llama.cpp: {agreed} of {total} tokens agree when teacher-forced ({100 * agreed / total:.1f}%)")
    assert agreed / total >= LEAST_AGREEMENT
