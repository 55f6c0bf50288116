"""Speed and memory of every stage on the CPU or a GPU of this machine: `scripts/device-check`.

Each stage runs in its own process, as a replica without Ray: it makes the same checks and opens its engine with the
same arguments as on a cluster. The stages run one after the other, each alone on the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import itertools
import json
import multiprocessing
import os
import queue
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import psutil
from rich.console import Console
from rich.table import Table

from actors.stages.ports import CachedAnswer, LlmRequest, SttJob, TtsRequest, VadBatch
from cluster.config_file import read_config
from deployments.engines.device import visible_gpus
from deployments.engines.speech_in.silero import STATE_SIZE
from rejoinder.core.audio.pcm import SAMPLE_BYTES, STT_RATE, VAD_WINDOW, WIRE_RATE
from rejoinder.core.errors import RejoinderError
from rejoinder.core.reply.answer_cache import CacheQuestion
from rejoinder.core.reply.prompt_window import ChatMessage
from rejoinder.core.settings.devices import DEVICE_ENGINES, WHISPER_GPU_TYPES
from rejoinder.core.settings.settings import parse_settings
from rejoinder.store import open_store
from rejoinder.store.human_clips import moonshine_clips

REPEATS = 10
"""Number of jobs of each stage, after its warm-up."""
STREAMS = 16
"""Number of callers whose windows one batch of voice activity detection has."""
TOKENS = 32
"""Length of an answer in tokens."""
TIMEOUT_S = 300.0
"""Seconds after which a stage is given up, its start included."""
SENTENCE = "The weather in London is cloudy today, with a little rain in the afternoon."
QUESTION = "Tell me a very long story about a lighthouse keeper."
NO_GPU = "CUDA's driver finds no GPU on this machine: run this on a node with a GPU, or with --device cpu."

Measured = tuple[float, float]
"""Milliseconds to the first result, and the pace: seconds of audio, or tokens, in a second. 0: without a pace."""


@dataclass(frozen=True, slots=True)
class StageFigures:
    """Figures of one stage.

    Attributes:
        stage: Section of the settings.
        engine: The engine and its model.
        start_s: Seconds to load the model and warm it up.
        first_ms: Median time in milliseconds to the first result of a job: a transcript, a token, a chunk of audio.
        pace: Median seconds of audio that are processed in a second; tokens in a second for `llm`; 0 if neither fits.
        memory_mb: Growth of the process's memory in MB.
        gpu_memory_mb: Growth of the memory in use on the GPU in MB; 0 on the CPU.
    """

    stage: str
    engine: str
    start_s: float
    first_ms: float
    pace: float
    memory_mb: float
    gpu_memory_mb: float


async def _vad(stage: Any, clip: bytes) -> Measured:
    windows, states = np.zeros((STREAMS, VAD_WINDOW), np.float32), np.zeros((STREAMS, STATE_SIZE), np.float32)
    batch = VadBatch(STREAMS, windows.tobytes(), states.tobytes())
    first_s = await _median(lambda: stage.step(batch))
    return first_s * 1000, STREAMS * VAD_WINDOW / STT_RATE / first_s


async def _turn_detector(stage: Any, clip: bytes) -> Measured:
    return await _median(lambda: stage.predict(clip)) * 1000, 0.0


async def _stt(stage: Any, clip: bytes) -> Measured:
    first_s = await _median(lambda: stage.transcribe(SttJob(clip)))
    return first_s * 1000, len(clip) / SAMPLE_BYTES / STT_RATE / first_s


async def _llm(stage: Any, clip: bytes) -> Measured:
    numbers = itertools.count(1)

    def answer() -> Any:
        # Every prompt differs from its first word on, so that no KV cache of an earlier one shortens the first token.
        message = ChatMessage("user", f"{next(numbers)}. {QUESTION}")
        return stage.generate(LlmRequest((message,), max_tokens=TOKENS))

    return await _streamed(answer, lambda delta: float(delta.tokens))


async def _tts(stage: Any, clip: bytes) -> Measured:
    return await _streamed(
        lambda: stage.synthesize(TtsRequest(SENTENCE)), lambda chunk: len(chunk) / SAMPLE_BYTES / WIRE_RATE
    )


async def _answer_cache(stage: Any, clip: bytes) -> Measured:
    answer = CachedAnswer(CacheQuestion("", "What time do you open on Sunday?"), "At ten.")
    return await _median(lambda: stage.store(answer)) * 1000, 0.0


@dataclass(frozen=True, slots=True)
class MeasuredStage:
    """A stage to measure: the path of its deployment's class, and the function that measures an open replica."""

    path: str
    measure: Callable[[Any, bytes], Awaitable[Measured]]


STAGES = {
    "vad": MeasuredStage("deployments.vad.Vad", _vad),
    "turn_detector": MeasuredStage("deployments.turn_detector.TurnDetector", _turn_detector),
    "stt": MeasuredStage("deployments.stt.Stt", _stt),
    "llm": MeasuredStage("deployments.llm.Llm", _llm),
    "tts": MeasuredStage("deployments.tts.Tts", _tts),
    "answer_cache": MeasuredStage("deployments.answer_cache.AnswerCache", _answer_cache),
}


async def _median(job: Callable[[], Awaitable[object]]) -> float:
    """Return the median duration of a job in seconds."""
    durations = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        await job()
        durations.append(time.perf_counter() - began)
    return statistics.median(durations)


async def _streamed(stream: Callable[[], Any], amount: Callable[[Any], float]) -> Measured:
    """Return the median milliseconds to the first part of a stream, and the median amount a second over the stream.

    Args:
        stream: Begins a stream.
        amount: Returns what a part of it counts: tokens, or seconds of audio.
    """
    firsts, paces = [], []
    for _ in range(REPEATS):
        began, first_s, total = time.perf_counter(), 0.0, 0.0
        async for part in stream():
            first_s = first_s or time.perf_counter() - began
            total += amount(part)
        firsts.append(first_s)
        paces.append(total / (time.perf_counter() - began))
    return statistics.median(firsts) * 1000, statistics.median(paces)


def stage_args(base: Mapping[str, Any], stage: str, device: str, share: float) -> dict[str, Any]:
    """Return `args` of a configuration with one stage put on a device.

    Args:
        base: `args` of the configuration.
        stage: The stage.
        device: "cpu" or "cuda".
        share: Share of the GPU that the stage reserves, from 0 to 1.
    """
    section = dict(base.get(stage) or {})
    section["resources"] = {**section.get("resources", {}), "num_gpus": share if device == "cuda" else 0}
    section["device"] = device
    if stage == "vad":
        section["placement"] = "deployment"
    if stage == "llm":
        section["nice"] = 0  # the stage is alone here
    if stage == "answer_cache":
        section |= {"enabled": True, "semantic": True}
    if device == "cpu" and section.get("compute_type") in WHISPER_GPU_TYPES:
        section["compute_type"] = "auto"
    return {**base, stage: section}


def gpu_memory_mb() -> float:
    """Return the memory in use on the first GPU that this process may use, in MB, as nvidia-smi prints it."""
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "").partition(",")[0] or "0"
    command = ["nvidia-smi", "-i", first, "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    used_mib = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout
    return float(used_mib) * 1024**2 / 1e6


def measure(stage: str, args: Mapping[str, Any]) -> StageFigures:
    """Open the replica of a stage in this process, and return its figures.

    Raises:
        RejoinderError: The settings are invalid, a model is missing, or the GPU cannot be used.
    """
    settings = parse_settings(args)
    clip = moonshine_clips(open_store(settings.models).path("human-clips"))[0].pcm().tobytes()
    on_gpu = getattr(settings, stage).on_gpu
    process = psutil.Process()
    memory, gpu_memory = process.memory_info().rss, gpu_memory_mb() if on_gpu else 0.0

    async def run() -> StageFigures:
        module, _, name = STAGES[stage].path.rpartition(".")
        began = time.perf_counter()
        replica = getattr(importlib.import_module(module), name)(settings)
        await replica.check_health()  # warms the language model up
        start_s = time.perf_counter() - began
        first_ms, pace = await STAGES[stage].measure(replica, clip)
        return StageFigures(
            stage,
            engine=str((await replica.describe())["engine"]),
            start_s=start_s,
            first_ms=first_ms,
            pace=pace,
            memory_mb=(process.memory_info().rss - memory) / 1e6,
            gpu_memory_mb=gpu_memory_mb() - gpu_memory if on_gpu else 0.0,
        )

    return asyncio.run(run())


def _child(stage: str, args: Mapping[str, Any], results: Any) -> None:
    try:
        results.put(measure(stage, args))
    except Exception as error:  # noqa: BLE001  # the other stages are measured all the same
        named = isinstance(error, RejoinderError)
        results.put(f"{stage}: {error}" if named else f"{stage}: {type(error).__name__}: {error}")


def check(base: Mapping[str, Any], stages: Sequence[str], device: str, share: float) -> list[StageFigures | str]:
    """Measure stages, one after the other, each in its own process. Return the figures, or why there are none.

    Args:
        base: `args` of the configuration.
        stages: The stages.
        device: "cpu" or "cuda".
        share: Share of the GPU that each stage reserves, from 0 to 1.
    """
    context = multiprocessing.get_context("spawn")
    found: list[StageFigures | str] = []
    for stage in stages:
        engine = getattr(getattr(parse_settings(base), stage), "engine", "")
        if engine not in DEVICE_ENGINES:
            found.append(f"{stage}: left out, because engine {engine} does not read the setting device.")
            continue
        results = context.Queue()
        process = context.Process(target=_child, args=(stage, stage_args(base, stage, device, share), results))
        process.start()
        found.append(_result(stage, process, results))
        process.kill()
    return found


def _result(stage: str, process: Any, results: Any) -> StageFigures | str:
    """Return what a child process puts into `results`, or why it puts nothing: a crash, or TIMEOUT_S seconds."""
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        ended = not process.is_alive()
        try:
            return cast("StageFigures | str", results.get(timeout=0.5))
        except queue.Empty:
            if ended:
                return f"{stage}: its process ended with status {process.exitcode}."
    return f"{stage}: no result within {TIMEOUT_S:.0f} s."


def table(found: Sequence[StageFigures], device: str) -> Table:
    """Return a table with a row for each stage."""
    rows = Table(title=f"{device}: median of {REPEATS} jobs; pace is seconds of audio (llm: tokens) in a second")
    for heading in ("stage", "engine", "start s", "first ms", "pace", "memory MB", "GPU memory MB"):
        rows.add_column(heading, justify="left" if heading in ("stage", "engine") else "right")
    for row in found:
        pace = f"{row.pace:.1f}" if row.pace else "-"
        on_gpu = f"{row.gpu_memory_mb:.0f}" if device == "cuda" else "-"
        start, first, memory = f"{row.start_s:.1f}", f"{row.first_ms:.1f}", f"{row.memory_mb:.0f}"
        rows.add_row(row.stage, row.engine, start, first, pace, memory, on_gpu)
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure every stage and print a table. Return the exit status: 0, 1 if a stage failed, 2 without a GPU."""
    parser = argparse.ArgumentParser(prog="scripts/device-check", description=__doc__)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda", help="where the stages compute")
    parser.add_argument("--config", type=Path, help="ray_config.yaml with the models to measure")
    parser.add_argument("--stages", default=",".join(STAGES), help="stages to measure, separated by commas")
    parser.add_argument("--share", type=float, default=1.0, help="share of the GPU that each stage reserves")
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args(arguments)
    stages = options.stages.split(",")
    if unknown := set(stages) - STAGES.keys():
        parser.error(f"unknown stages: {', '.join(sorted(unknown))}; there are {', '.join(STAGES)}")
    if options.device == "cuda" and not visible_gpus():
        print(NO_GPU, file=sys.stderr)
        return 2
    try:
        base = read_config(options.config).application.args.model_dump(mode="json", exclude_unset=True)
    except RejoinderError as error:
        print(error, file=sys.stderr)
        return 2
    found = check(base, stages, options.device, options.share)
    figures = [one for one in found if isinstance(one, StageFigures)]
    Console(width=140).print(table(figures, options.device))
    messages = [one for one in found if isinstance(one, str)]
    for message in messages:
        print(message, file=sys.stderr)
    if options.json:
        document = {"device": options.device, "stages": [asdict(one) for one in figures]}
        options.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return int(any(": left out" not in message for message in messages))


if __name__ == "__main__":
    sys.exit(main())
