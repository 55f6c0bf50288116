"""The latency guide's tables of placement (section 4.1), and of GPUs and precisions (section 4.2), cell by cell.

`loadtest.capacity.concurrency` explains the status of a cell.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

from loadtest.capacity.concurrency import KV_SHARE, NO_SERVER, Cell, CellStatus, Measurements, Quantized
from rejoinder.core.capacity.hardware import (
    GPUS,
    PLACEMENTS,
    PRECISIONS,
    Gpu,
    Precision,
    decode_bound_tokens_per_s,
    weights_gb,
)

FASTER_WHISPER = "published, faster-whisper README: 13 minutes by large-v2 on a V100S in 54 s (fp16), 59 s (int8)"
FASTER_WHISPER_CPU = "published, faster-whisper README: small on 8 threads in 164 s (fp32), 124 s (int8): 1.3x"
CORAL = "published, coral.ai docs, TensorFlow models on the Edge TPU: only fully 8-bit quantized TensorFlow Lite"
NEMOTRON = "published, nemotron-voice-agent evaluation on 4 H100 (2026-07)"
L20 = "published, CosyVoice2 with TensorRT-LLM on one L20: 78 + 119 n ms to the first audio of n streams"
MISTRAL = "published, guide section 1.5: Mistral 7B self-hosted, ~130 ms to the first token, ~170 tokens/s"

SPEECH_TOKENS_PER_S = 4.0
"""Tokens per second that speech needs: 150 English words a minute at 1.5 tokens per word, rounded up. A slower model
causes underruns."""

SMALL_B = 0.135
"""Parameters of the embedded model, in billions."""

SEVEN_B, SEVENTY_B = 7.0, 70.0


Column = Literal["recommended", "alternative"]


class _Finding(NamedTuple):
    """Result for one cell of the latency guide's section 4.1, before the guide's own text is added.

    The fields have the same meaning as in `Cell`: result, status, source, and a configuration that would meet the
    guide.
    """

    found: str
    status: CellStatus
    source: str
    would: str = ""


def placement(measurements: Measurements) -> Iterator[Cell]:
    """Yield two cells of the latency guide's section 4.1 for each component, such as speech to text.

    They say whether the guide's recommended and alternative hardware is enough.
    """
    for row in PLACEMENTS:
        columns: tuple[tuple[Column, str], ...] = (("recommended", row.recommended), ("alternative", row.alternative))
        for column, guide in columns:
            finding = _FINDINGS[row.component](measurements, column)
            yield Cell(
                "4.1",
                row=row.component,
                column=column,
                guide=guide,
                found=finding.found,
                status=finding.status,
                source=finding.source,
                would=finding.would,
            )


def _edge(measurements: Measurements, column: Column) -> _Finding:
    line = measurements.cores_line
    if line is None:
        return _Finding("-", CellStatus.UNKNOWN, NO_SERVER)
    found = f"holds: {line.each * 1000:.1f} millicores a session"
    return _Finding(found, CellStatus.MEASURED, "our host over WebSocket, in place of an SFU")


def _vad(measurements: Measurements, column: Column) -> _Finding:
    if column == "alternative":
        would = "the model converted to TensorFlow Lite and quantized (none was found)"
        found = "Silero is published as ONNX and TorchScript"
        return _Finding(found, CellStatus.FAILS, CORAL, would)
    engine = measurements.engines["vad"]
    found = f"holds: {engine.pace:.0f} streams in real time a core, {engine.job_ms:.2f} ms a window"
    return _Finding(found, CellStatus.MEASURED, "hardware study, one window at a time")


def _stt(measurements: Measurements, column: Column) -> _Finding:
    if column == "recommended":
        found = "holds on a V100S: 14 times real time; no figure for a T4 or A10G was found"
        return _Finding(found, CellStatus.PUBLISHED, FASTER_WHISPER)
    engine = measurements.engines["stt"]
    found = f"holds for whisper-base: {engine.job_ms:.0f} ms a clip, {engine.pace:.0f} times real time a core"
    return _Finding(found, CellStatus.MEASURED, "hardware study; not measured on a CPU with many cores")


def _llm(measurements: Measurements, column: Column) -> _Finding:
    engine = measurements.engines["llm"]
    on_cpu = engine.pace * SMALL_B / SEVEN_B
    if column == "recommended":
        verdict = "holds for 7B" if on_cpu < SPEECH_TOKENS_PER_S else "not required at 7B"
        found = f"{verdict}: a core here would run 7B at {on_cpu:.1f} tokens/s, speech needs {SPEECH_TOKENS_PER_S:g}"
        source = f"{engine.pace:.0f} tokens/s of {SMALL_B * 1000:.0f}M measured, scaled by weights; {NEMOTRON} for GPUs"
        return _Finding(found, CellStatus.PROJECTED, source)
    rates = ", ".join(
        f"{gpu.name} {decode_bound_tokens_per_s(gpu.bandwidth_gb_s, SEVEN_B, 16):.0f}" for gpu in _middle()
    )
    found = f"holds for 7B at FP16: at most {rates} tokens/s a stream"
    return _Finding(found, CellStatus.PROJECTED, f"memory bandwidth / 14 GB of weights; {MISTRAL}")


def _middle() -> list[Gpu]:
    return [gpu for gpu in GPUS if gpu.name in ("A10G", "L4")]


def _tts(measurements: Measurements, column: Column) -> _Finding:
    if column == "recommended":
        found = "holds on an L20: 197 ms to the first audio of one stream"
        return _Finding(found, CellStatus.PUBLISHED, L20)
    engine = measurements.engines["tts"]
    found = f"holds for a Piper voice: {engine.job_ms:.0f} ms a sentence, {engine.pace:.0f} times real time a core"
    return _Finding(found, CellStatus.MEASURED, "hardware study")


_FINDINGS = {"WebRTC/SFU": _edge, "VAD": _vad, "STT": _stt, "LLM": _llm, "TTS": _tts}


def gpus() -> Iterator[Cell]:
    """Yield three cells of the latency guide's section 4.2 for each GPU: memory, rank by speed, and models that fit.

    The cells are computed from published figures, because this machine has no GPU.
    """
    ranked = sorted(GPUS, key=lambda gpu: -gpu.bandwidth_gb_s)
    for gpu in GPUS:
        yield Cell(
            "4.2",
            row=gpu.name,
            column="VRAM",
            guide=f"{gpu.vram_gb} GB",
            found="as in the data sheet",
            status=CellStatus.PUBLISHED,
            source="NVIDIA data sheet",
        )
        yield _pace(gpu, ranked)
        yield _use(gpu)


def _pace(gpu: Gpu, ranked: list[Gpu]) -> Cell:
    """Return the cell that compares a GPU's place in the guide's order of speed with its rank by memory bandwidth.

    Memory bandwidth limits the tokens per second that a language model generates for a single request. `ranked` has all
    GPUs of the guide by falling memory bandwidth.
    """
    bound = decode_bound_tokens_per_s(gpu.bandwidth_gb_s, SEVEN_B, 16)
    found = f"at most {bound:.0f} tokens/s of 7B at FP16, {ranked.index(gpu) + 1}. of {len(ranked)}"
    source = f"{gpu.bandwidth_gb_s:g} GB/s (NVIDIA data sheet) / 14 GB of weights, one stream"
    better = [other.name for other in GPUS[GPUS.index(gpu) + 1 :] if other.bandwidth_gb_s > gpu.bandwidth_gb_s]
    if not better:
        return Cell(
            "4.2",
            row=gpu.name,
            column="tokens/s",
            guide=gpu.pace,
            found=found,
            status=CellStatus.PROJECTED,
            source=source,
        )
    would = f"ranked below {' and '.join(better)} for single streams; in batches its compute may rank it higher"
    return Cell(
        "4.2",
        row=gpu.name,
        column="tokens/s",
        guide=gpu.pace,
        found=found,
        status=CellStatus.FAILS,
        source=source,
        would=would,
    )


def _use(gpu: Gpu) -> Cell:
    fits = [
        f"{size:g}B at {precision.name}"
        for size in (SEVEN_B, SEVENTY_B)
        for precision in PRECISIONS[1:]
        if weights_gb(size, precision.bits) * (1 + KV_SHARE) <= gpu.vram_gb
    ]
    source = f"weights and {KV_SHARE:.0%} for cache and engine, against {gpu.vram_gb} GB"
    return Cell(
        "4.2",
        row=gpu.name,
        column="best for",
        guide=gpu.best_for,
        found=f"holds {', '.join(fits)}",
        status=CellStatus.PROJECTED,
        source=source,
    )


def quantization(measurements: Measurements) -> Iterator[Cell]:
    """Yield the cells of the latency guide's section 4.2 for each precision: speed-up and error against float32."""
    for row in PRECISIONS:
        if row.name == "INT8":
            for quantized in measurements.quantized:
                yield _speedup(row, quantized)
                yield _error(row, quantized)
            continue
        yield from _not_measured(row)


def _speedup(row: Precision, comparison: Quantized) -> Cell:
    guide = f"{row.least_speedup:g}-{row.most_speedup:g}x"
    result, source = f"{comparison.speedup:.2f}x", f"quantization study on this CPU; {FASTER_WHISPER_CPU}"
    column = f"speed-up, {comparison.model}"
    if comparison.speedup >= row.least_speedup:
        return Cell(
            "4.2", row=row.name, column=column, guide=guide, found=result, status=CellStatus.MEASURED, source=source
        )
    would = "where reading the weights for each token takes all the time: 4x at most"
    return Cell(
        "4.2",
        row=row.name,
        column=column,
        guide=guide,
        found=result,
        status=CellStatus.FAILS,
        source=source,
        would=would,
    )


def _error(row: Precision, comparison: Quantized) -> Cell:
    column, result = f"error, {comparison.model}", f"{comparison.error:+.2%}"
    if comparison.error <= row.most_error:
        return Cell(
            "4.2",
            row=row.name,
            column=column,
            guide=row.quality,
            found=result,
            status=CellStatus.MEASURED,
            source=comparison.what,
        )
    would = "a larger model, or weights quantized with calibration data"
    return Cell(
        "4.2",
        row=row.name,
        column=column,
        guide=row.quality,
        found=result,
        status=CellStatus.FAILS,
        source=comparison.what,
        would=would,
    )


def _not_measured(row: Precision) -> Iterator[Cell]:
    """Yield the cells of a precision that was not measured: speed-up and error.

    FP32 is the baseline. The engines on this CPU do not support the others.
    """
    guide = (
        f"{row.least_speedup:g}x"
        if row.least_speedup == row.most_speedup
        else f"{row.least_speedup:g}-{row.most_speedup:g}x"
    )
    if row.name == "FP32":
        for column, text in (("speed-up", guide), ("error", row.quality)):
            yield Cell(
                "4.2",
                row=row.name,
                column=column,
                guide=text,
                found="the baseline, by definition",
                status=CellStatus.MEASURED,
                source="quantization study",
            )
        return
    bound = 32 / row.bits
    found = f"at most {bound:g}x for one stream, which reads all weights for each token"
    source = "ratio of the weights' sizes; this CPU's engine does not support the precision"
    if bound < row.least_speedup:
        yield Cell(
            "4.2",
            row=row.name,
            column="speed-up",
            guide=guide,
            found=found,
            status=CellStatus.FAILS,
            source=source,
            would="batches limited by compute",
        )
    else:
        yield Cell(
            "4.2", row=row.name, column="speed-up", guide=guide, found=found, status=CellStatus.PROJECTED, source=source
        )
    yield Cell(
        "4.2",
        row=row.name,
        column="error",
        guide=row.quality,
        found="as in the guide; not measured here",
        status=CellStatus.PUBLISHED,
        source="guide section 4.2",
    )
