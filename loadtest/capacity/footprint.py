"""What sessions and requests occupy: cores, memory and network, from a calibration.

Cores and memory of a host are a straight line over its sessions; a stage's cores are the CPU seconds of a request times
how many of them a replica serves. Network figures are header arithmetic over measured message rates.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from loadtest.bandwidth.formula import NetworkLoad, Tcp, kbps
from loadtest.capacity.calibration import Calibration, Level
from loadtest.capacity.turn_network import TurnNetwork
from rejoinder.core.audio.pcm import SAMPLE_BYTES, STT_RATE, WIRE_RATE
from rejoinder.core.capacity.sizing import Basis, ReplicaUnit, Traffic, basis_at, messages
from rejoinder.core.errors import ConfigError

HOST_CORES = 0.7
"""A host is one event loop on one core; beyond this share of it ticks come late."""

HEADROOM = 1.3
"""Cores reserved for each core used: what a replica needs when its work comes in bursts."""

LEAST_CORES = 0.1

DELTA_S = 0.1
"""Audio of one message to the client, as the host cuts it."""

DELTA_BYTES = round(4 / 3 * DELTA_S * WIRE_RATE * SAMPLE_BYTES) + 150
"""Base64, and the event around it."""

TOKEN_MESSAGES_PER_S = 66.0
"""Deltas of a language model at most, coalesced over 15 ms."""

TTS_CHUNK_S = 0.2
SMALL_BYTES = 300
"""A request or answer that holds no audio: a transcript, a segment's text, a token delta with its frame."""

PROMPT_BYTES = 2000

VERDICT_S = 8.0
"""Speech that a turn verdict looks at, at most; shorter utterances send less."""


@dataclass(frozen=True, slots=True)
class LinearFit:
    """`at_none` and `each`: a quantity over the number of sessions, neither below 0."""

    at_none: float
    each: float

    def at(self, sessions: float) -> float:
        return self.at_none + self.each * sessions


def line(sessions: list[float], values: list[float]) -> LinearFit:
    """Least squares with neither part negative; one point gives a line through 0."""
    x, y = np.array(sessions), np.array(values)
    through_zero = LinearFit(0.0, float((x @ y) / (x @ x)))
    if len(set(sessions)) < 2:
        return through_zero
    each, at_none = np.polyfit(x, y, 1)
    if each < 0:
        return LinearFit(float(y.mean()), 0.0)
    return LinearFit(float(at_none), float(each)) if at_none >= 0 else through_zero


@dataclass(frozen=True, slots=True)
class HostFootprint:
    """One host: its lines, the sessions it holds within HOST_CORES, and whether that was measured so far."""

    cores: LinearFit
    memory_mb: LinearFit
    sessions: int
    basis: Basis

    @property
    def unit(self) -> ReplicaUnit:
        cores = max(LEAST_CORES, self.cores.at(self.sessions) * HEADROOM)
        return ReplicaUnit("host", self.sessions, min(1.0, cores), self.memory_mb.at(self.sessions) * HEADROOM)


def host(calibration: Calibration, most: int | None = None) -> HostFootprint:
    """`most` bounds the sessions of a host; raises ConfigError if it cannot hold one within its core."""
    levels = calibration.levels
    sessions = [level.sessions / level.hosts for level in levels]
    cores = line(sessions, [level.host_cores / level.hosts for level in levels])
    memory = line(sessions, [level.host_memory_mb for level in levels])
    room = (HOST_CORES - cores.at_none) / cores.each if cores.each else math.inf
    held = int(min(room, most or math.inf, 10_000))
    if held < 1:
        raise ConfigError(
            f"a host already uses {cores.at_none:.2f} cores for itself.", "Calibrate on an idle machine.", field="--url"
        )
    return HostFootprint(cores, memory, held, basis_at(held, min(sessions), max(sessions)))


def cpu_per_request_s(calibration: Calibration, stage: str) -> float:
    """CPU seconds of one request, over all levels together."""
    rows = [(level.stages[stage], level.for_s) for level in calibration.levels if stage in level.stages]
    requests = sum(row.requests for row, _ in rows)
    return sum(row.cores * row.replicas * for_s for row, for_s in rows) / requests if requests else 0.0


def stage_unit(calibration: Calibration, stage: str, requests_per_s: float) -> ReplicaUnit:
    """One replica that serves so many requests a second."""
    memory = max(level.stages[stage].memory_mb for level in calibration.levels if stage in level.stages)
    cores = max(LEAST_CORES, cpu_per_request_s(calibration, stage) * requests_per_s * HEADROOM)
    return ReplicaUnit(stage, calibration.slots.get(stage, 1), cores, memory * HEADROOM)


def requests_per_turn(calibration: Calibration, stage: str) -> float:
    """Of a stage, in all levels together: requests for each that the language model got."""
    rows = [level.stages for level in calibration.levels if stage in level.stages]
    turns = sum(row["llm"].requests for row in rows)
    return sum(row[stage].requests for row in rows) / turns if turns else 0.0


def edge(level: Level) -> Traffic:
    """One session at our edge, TCP over IPv4 without TLS: frames as they were sent, audio as it was heard."""
    frame = level.in_kbps * 1000 / 8 / level.frames_per_s if level.frames_per_s else 0.0
    deltas_per_s = level.audio_s / DELTA_S * level.turns_per_s / level.sessions
    inward = Tcp().message(round(frame), masked=True) * level.frames_per_s
    outward = Tcp().message(DELTA_BYTES, masked=False) * deltas_per_s
    return Traffic(_kbps(inward), _kbps(outward), inward.packets, outward.packets)


def _kbps(load: NetworkLoad) -> float:
    return kbps(load.ip_bytes, 1.0)


def verdicts(per_s: float) -> Traffic:
    """The turn detector's: the last 8 s of speech at most, in; a probability out."""
    return messages(VERDICT_S * STT_RATE * SAMPLE_BYTES, SMALL_BYTES, per_s, per_s)


def inside(network: TurnNetwork, stage: str, turns_per_s: float, speech_s: float) -> Traffic:
    """A stage's traffic inside the cluster, all replicas together: message sizes as the ports have them."""
    answer = network.answer
    if stage == "stt":
        requests = turns_per_s * (1 + network.callers.abandoned)
        return messages(speech_s * STT_RATE * SAMPLE_BYTES, SMALL_BYTES, requests, requests)
    if stage == "llm":
        deltas = 1 + answer.generation_s * TOKEN_MESSAGES_PER_S
        return messages(PROMPT_BYTES, SMALL_BYTES, turns_per_s, turns_per_s * deltas)
    chunks = sum(math.ceil(audio_s / TTS_CHUNK_S) for _, audio_s in answer.segments)
    size = answer.audio_s * WIRE_RATE * SAMPLE_BYTES / chunks if chunks else 0.0
    return messages(SMALL_BYTES, size, turns_per_s * len(answer.segments), turns_per_s * chunks)
