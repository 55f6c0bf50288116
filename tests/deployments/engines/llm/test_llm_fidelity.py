"""Do the converted weights still say what the original says? Held against transformers on the same GGUF."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ctranslate2
import numpy as np
import pytest
import torch
import xllamacpp
from transformers import AutoModelForCausalLM

from deployments.engines.llm.chat_template import ChatTokenizer
from deployments.engines.llm.llama_cpp import LlamaCppOptions, parameters_of
from rejoinder.core.reply.prompt_window import ChatMessage
from rejoinder.store.model_store import ModelStore
from tests.deployments.engines.prompts import QUESTIONS, SYSTEM

pytestmark = [pytest.mark.models, pytest.mark.timeout(300)]

MODEL = "smollm2-135m-instruct"
TOKENS = 8
# float32 is the same model; of int8 and of the GGUF's own four bits, computed as llama.cpp does, so much must agree.
LEAST_AGREEMENT = 0.88


class Reference:
    """Greedy answers of the original model, and its prompts."""

    def __init__(self, folder: Path) -> None:
        chat = ChatTokenizer(folder)
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        questions = [(ChatMessage("system", SYSTEM), ChatMessage("user", question)) for question in QUESTIONS]
        self.prompts = [chat.token_ids(chat.render(messages)) for messages in questions]
        self.end = chat.end_tokens
        self.answers = [greedy(model, prompt) for prompt in self.prompts]
        self.chat = chat


def greedy(model: Any, prompt: list[int]) -> list[int]:
    output = model.generate(torch.tensor([prompt]), max_new_tokens=TOKENS, do_sample=False)
    answer: list[int] = output[0, len(prompt) :].tolist()
    return answer


@pytest.fixture(scope="module")
def reference(store: ModelStore) -> Reference:
    return Reference(store.converted(MODEL, "hf"))


def test_float32_gives_the_same_answers(reference: Reference, store: ModelStore) -> None:
    """The float32 conversion's first 8 greedy tokens are the original's on 20 of 20 prompts."""
    generator = ctranslate2.Generator(str(store.converted(MODEL, "ct2-float32")), compute_type="float32")
    same = 0
    for prompt, expected in zip(reference.prompts, reference.answers, strict=True):
        result = generator.generate_batch(
            [[reference.chat.token(token) for token in prompt]],
            max_length=TOKENS,
            include_prompt_in_result=False,
            end_token=reference.end,
            return_end_token=True,
        )[0]
        same += result.sequences_ids[0] == expected
    print(f"float32: {same} of {len(QUESTIONS)} greedy answers identical over {TOKENS} tokens")
    assert same == len(QUESTIONS)


def test_int8_agrees_token_by_token(reference: Reference, store: ModelStore) -> None:
    """Shown the original's answer so far, the int8 model's next token is the original's in 88% of cases."""
    generator = ctranslate2.Generator(str(store.converted(MODEL, "ct2-int8")), compute_type="int8")
    agreed = total = 0
    for prompt, answer in zip(reference.prompts, reference.answers, strict=True):
        tokens = [reference.chat.token(token) for token in prompt + answer[:-1]]
        logits = np.asarray(generator.forward_batch([tokens]))[0, len(prompt) - 1 :]
        agreed += int((logits.argmax(axis=1) == np.array(answer)).sum())
        total += len(answer)
    print(f"int8: {agreed} of {total} tokens agree when teacher-forced ({100 * agreed / total:.1f}%)")
    assert agreed / total >= LEAST_AGREEMENT


def test_four_bits_agree_token_by_token(reference: Reference, store: ModelStore) -> None:
    """Given the original's answer so far, llama.cpp's next token on the GGUF equals the original's in 88% of cases."""
    folder = store.path(MODEL)
    server = xllamacpp.Server(parameters_of(next(folder.glob("*.gguf")), LlamaCppOptions(slots=1, context_tokens=2048)))
    agreed = total = 0
    for prompt, answer in zip(reference.prompts, reference.answers, strict=True):
        for at, expected in enumerate(answer):
            body = {"prompt": prompt + answer[:at], "max_tokens": 1, "temperature": 0, "logprobs": 1}
            (choice,) = server.handle_completions(body)["choices"]
            found = [entry["id"] for entry in choice["logprobs"]["content"]] if choice["logprobs"] else []
            ended = choice["finish_reason"] == "stop" and reference.chat.token(expected) in reference.end
            agreed += found == [expected] or ended
            total += 1
    print(f"llama.cpp: {agreed} of {total} tokens agree when teacher-forced ({100 * agreed / total:.1f}%)")
    assert agreed / total >= LEAST_AGREEMENT
