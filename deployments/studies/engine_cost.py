"""Memory and speed of each engine on this machine: `python -m deployments.studies.engine_cost`.

Each engine runs in its own process, one job at a time on one thread. Memory is the growth of the process from before
the engine is loaded to after the work. Pace is the speed relative to real time, and tokens per second for the language
model.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import statistics
import time
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import psutil

from rejoinder.core.audio.pcm import SAMPLE_BYTES, STT_RATE, VAD_WINDOW, WIRE_RATE
from rejoinder.core.errors import BackendError
from rejoinder.core.settings.settings import ModelStoreSettings
from rejoinder.store.model_store import ModelStore, open_store

REPEATS = 20
WINDOWS = 2000
SENTENCE = "The weather in London is cloudy today, with a little rain in the afternoon."
LONG_QUESTION = "Tell me a very long story about a lighthouse keeper."
TOKENS = 32
TIMEOUT_S = 300.0


@dataclass(frozen=True, slots=True)
class EngineCost:
    """Cost of one engine on one core.

    Attributes:
        engine: Stage name: vad, stt, llm or tts.
        memory_mb: Growth of the process's memory in MB.
        job_ms: Time of one job in milliseconds. A job is a window, a clip, an answer or a sentence.
        pace: Seconds of audio (or tokens, for llm) processed per second.
    """

    engine: str
    memory_mb: float
    job_ms: float
    pace: float


Measure = Callable[[ModelStore], tuple[float, float]]
"""Function that opens an engine, runs it, and returns the milliseconds of a job and the pace (`EngineCost.pace`)."""


def vad(store: ModelStore) -> tuple[float, float]:
    """Measure Silero on windows of 32 ms. Return the ms per window, and the seconds of audio processed per second."""
    from deployments.engines.speech_in.silero import STATE_SIZE, Silero

    engine = Silero(store.path("silero-vad") / "silero_vad.onnx")
    engine.warm_up()
    window, state = np.zeros((1, VAD_WINDOW), np.float32), np.zeros((1, STATE_SIZE), np.float32)
    started = time.perf_counter()
    for _ in range(WINDOWS):
        _, state = engine.step(window, state)
    job_s = (time.perf_counter() - started) / WINDOWS
    return job_s * 1000, VAD_WINDOW / STT_RATE / job_s


def stt(store: ModelStore) -> tuple[float, float]:
    """Measure Whisper base on human speech. Return the ms per clip, and the seconds of audio processed per second."""
    from deployments.engines.stt.whisper import Whisper, WhisperOptions
    from rejoinder.store.human_clips import moonshine_clips

    engine = Whisper(store.path("whisper-base"), WhisperOptions(threads=1))
    engine.warm_up()
    clips = [clip.pcm() for clip in moonshine_clips(store.path("human-clips"))]
    times = [_timed(partial(engine.transcribe_batch, [clip])) for clip in clips for _ in range(3)]
    audio_s = 3 * sum(clip.size for clip in clips) / STT_RATE
    return statistics.median(times) * 1000, audio_s / sum(times)


def tts(store: ModelStore) -> tuple[float, float]:
    """Measure Piper on one sentence. Return the ms for its synthesis, and the seconds of audio made per second."""
    from deployments.engines.piper import PiperVoice

    engine = PiperVoice(store.path("piper-en-us-joe-medium"), threads=1)
    engine.warm_up()
    audio_s = sum(len(chunk) for chunk in engine.synthesize(SENTENCE)) / SAMPLE_BYTES / WIRE_RATE
    job_s = statistics.median(_timed(lambda: list(engine.synthesize(SENTENCE))) for _ in range(REPEATS))
    return job_s * 1000, audio_s / job_s


def llm(store: ModelStore) -> tuple[float, float]:
    """Measure SmolLM2-135M (4-bit) in llama.cpp on answers of TOKENS tokens, without reuse of the KV cache.

    Return the ms per answer, and the tokens per second.
    """
    from actors.stages.ports import LlmRequest
    from deployments.engines.llm.llama_cpp import LlamaCpp, LlamaCppOptions
    from rejoinder.core.reply.prompt_window import ChatMessage

    engine = LlamaCpp(store.path("smollm2-135m-instruct"), LlamaCppOptions(threads=1, slots=1, reuse=False))
    request = LlmRequest((ChatMessage("user", LONG_QUESTION),), max_tokens=TOKENS)

    async def answer() -> int:
        async with aclosing(engine.stream(request)) as deltas:
            return sum([delta.tokens async for delta in deltas])

    with asyncio.Runner() as runner:
        tokens = runner.run(answer())
        job_s = statistics.median(_timed(lambda: runner.run(answer())) for _ in range(REPEATS))
    return job_s * 1000, tokens / job_s


ENGINES: dict[str, Measure] = {"vad": vad, "stt": stt, "llm": llm, "tts": tts}


def _timed(job: Callable[[], object]) -> float:
    started = time.perf_counter()
    job()
    return time.perf_counter() - started


def _measure(name: str, directory: str, results: multiprocessing.Queue[EngineCost]) -> None:
    process = psutil.Process()
    before = process.memory_info().rss
    job_ms, pace = ENGINES[name](open_store(ModelStoreSettings(directory=directory)))
    results.put(EngineCost(name, (process.memory_info().rss - before) / 1e6, job_ms, pace))


def study(directory: str = "") -> list[EngineCost]:
    """Measure all engines, one after the other, and return the cost of each.

    Args:
        directory: Directory of the model store; empty for the user's cache.

    Raises:
        BackendError: An engine failed or took longer than TIMEOUT_S seconds.
    """
    context = multiprocessing.get_context("spawn")
    costs = []
    for name in ENGINES:
        results: multiprocessing.Queue[EngineCost] = context.Queue()
        process = context.Process(target=_measure, args=(name, directory, results))
        process.start()
        process.join(TIMEOUT_S)
        if process.is_alive():
            process.kill()
        if process.exitcode != 0:
            raise BackendError(f"the {name} engine could not be measured.", "See its message above.", stage=name)
        costs.append(results.get(timeout=5))
    return costs


def main() -> None:
    """Measure all engines and print one line per engine."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", default="", help="directory of the model store (default: the user's cache)")
    parser.add_argument("--json", type=Path, help="write the costs to this file")
    arguments = parser.parse_args()
    costs = study(arguments.models)
    for cost in costs:
        print(f"{cost.engine}: {cost.memory_mb:.0f} MB, {cost.job_ms:.2f} ms per job, pace {cost.pace:.1f}")
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(cost) for cost in costs], indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
