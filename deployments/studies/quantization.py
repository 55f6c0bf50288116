"""What eight bits instead of thirty-two gain and cost here: `python -m deployments.studies.quantization`.

The same weights in float32 and in int8, on this machine's CPU, one after the other on the same inputs: Whisper's time a
clip and its word errors, the language model's tokens a second and how often its next token is the float32 model's when
both have read the same words so far. The language model's quality is agreement, not benchmark scores: it says what
changed, not whether it got worse.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import ctranslate2
import numpy as np

from deployments.engines.llm.chat_template import ChatTokenizer
from deployments.engines.stt.whisper import Whisper, WhisperOptions
from rejoinder.core.measuring.wer import word_errors, words
from rejoinder.core.reply.prompt_window import ChatMessage
from rejoinder.core.settings.settings import ModelStoreSettings
from rejoinder.store.human_clips import HumanClip
from rejoinder.store.human_corpus import human_clips
from rejoinder.store.model_store import ModelStore, open_store

Precision = Literal["float32", "int8"]
PRECISIONS: tuple[Precision, ...] = ("float32", "int8")
WHISPER, LLM = "whisper-base", "smollm2-135m-instruct"
TOKENS = 32
ROUNDS = 3
INSTRUCTIONS = "You are a helpful voice assistant on a phone call. Answer in one or two short spoken sentences."
QUESTIONS = (
    "What is the capital of France?",
    "How do I boil an egg?",
    "Why is the sky blue?",
    "How far away is the moon?",
    "Please recommend a book about history.",
    "How do I reset my password?",
    "What does a lawyer do?",
    "My flight was cancelled. What now?",
)


@dataclass(frozen=True, slots=True)
class QuantizationResult:
    """One model. `speedup`: float32's time over int8's. `error`: int8's additional errors as a share (of words, or of
    tokens); negative if it made fewer. `unit` is what `float32` and `int8` are, smaller is faster if it is ms.
    """

    model: str
    unit: str
    float32: float
    int8: float
    speedup: float
    error: float
    what: str


def whisper(store: ModelStore, clips: Sequence[HumanClip], threads: int) -> QuantizationResult:
    """Median time of a clip, and word errors, by precision; the two alternate, so that noise meets both."""
    folder = store.path(WHISPER)
    engines = {name: Whisper(folder, WhisperOptions(compute_type=name, threads=threads)) for name in PRECISIONS}
    for engine in engines.values():
        engine.warm_up()
    times: dict[Precision, list[float]] = {name: [] for name in PRECISIONS}
    errors = dict.fromkeys(PRECISIONS, 0)
    for clip in clips:
        pcm = clip.pcm()
        for name, engine in engines.items():
            began = time.perf_counter()
            heard = engine.transcribe_batch([pcm])[0].text
            times[name].append((time.perf_counter() - began) * 1000)
            errors[name] += word_errors(clip.text, heard)
    total = sum(len(words(clip.text)) for clip in clips)
    float32, int8 = (statistics.median(times[name]) for name in PRECISIONS)
    return QuantizationResult(
        WHISPER,
        unit="ms a clip (median)",
        float32=float32,
        int8=int8,
        # Of sums, not of medians: what a busy replica gains.
        speedup=sum(times["float32"]) / sum(times["int8"]),
        error=(errors["int8"] - errors["float32"]) / total,
        what=f"{errors['float32']} and {errors['int8']} errors in {total} words of {len(clips)} human clips",
    )


def language_model(store: ModelStore, threads: int) -> QuantizationResult:
    """Tokens a second of one answer at a time, and agreement with float32 on the same words so far."""
    generators = {
        name: ctranslate2.Generator(
            str(store.converted(LLM, f"ct2-{name}")), device="cpu", compute_type=name, intra_threads=threads
        )
        for name in PRECISIONS
    }
    chat = ChatTokenizer(store.converted(LLM, "ct2-float32"))
    prompts = [
        chat.encode([ChatMessage("system", INSTRUCTIONS), ChatMessage("user", text)], answer="") for text in QUESTIONS
    ]
    rates: dict[Precision, list[float]] = {name: [] for name in PRECISIONS}
    answers: list[list[str]] = []
    for round_ in range(ROUNDS):
        for prompt in prompts:
            for name, generator in generators.items():
                answer, taken_s = _timed(generator, prompt, chat.end_tokens)
                rates[name].append(len(answer) / taken_s)
                if name == "float32" and round_ == 0:
                    answers.append(answer)
    agreed, total = _agreement(generators["int8"], chat, prompts, answers)
    float32, int8 = (statistics.median(rates[name]) for name in PRECISIONS)
    what = f"{agreed} of {total} next tokens are float32's"
    return QuantizationResult(
        LLM,
        unit="tokens a second (median)",
        float32=float32,
        int8=int8,
        speedup=int8 / float32,
        error=1 - agreed / total,
        what=what,
    )


def _timed(generator: ctranslate2.Generator, prompt: list[str], end: list[str]) -> tuple[list[str], float]:
    began = time.perf_counter()
    result = generator.generate_batch(
        [prompt], max_length=TOKENS, include_prompt_in_result=False, end_token=end, return_end_token=True
    )[0]
    return list(result.sequences[0]), time.perf_counter() - began


def _agreement(
    generator: ctranslate2.Generator, chat: ChatTokenizer, prompts: Sequence[list[str]], answers: Sequence[list[str]]
) -> tuple[int, int]:
    """How many of the answers' tokens the generator would have said next, having read what came before them."""
    agreed = 0
    for prompt, answer in zip(prompts, answers, strict=True):
        logits = np.asarray(generator.forward_batch([prompt + answer[:-1]]))[0, len(prompt) - 1 :]
        agreed += sum(chat.token(int(best)) == said for best, said in zip(logits.argmax(axis=1), answer, strict=True))
    return agreed, sum(len(answer) for answer in answers)


def study(store: ModelStore, threads: int, every_prompt: int = 10) -> list[QuantizationResult]:
    """Both models."""
    clips = list(human_clips(store.path("human-clips"), every_prompt))
    return [whisper(store, clips, threads), language_model(store, threads)]


def main() -> None:
    """Run the study and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", default="", help="directory of the model store (default: the user's cache)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write the comparisons to this file")
    arguments = parser.parse_args()
    found = study(open_store(ModelStoreSettings(directory=arguments.models)), arguments.threads)
    for row in found:
        print(
            f"{row.model}: {row.float32:.1f} (float32) and {row.int8:.1f} (int8) {row.unit}, {row.speedup:.2f}x; "
            f"error {row.error:+.2%}: {row.what}"
        )
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(row) for row in found], indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
