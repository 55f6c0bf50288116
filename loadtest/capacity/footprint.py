"""Cores, memory and network traffic of hosts and stages, computed from a calibration.

The cores and the memory of a host are straight lines over its number of sessions. The cores of a stage's replica are
the CPU seconds of one request times the requests per second. Network traffic is computed from header sizes and measured
message rates.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from loadtest.bandwidth.formula import NetworkLoad, Tcp, kbps
from loadtest.capacity.calibration import Calibration
from loadtest.capacity.turn_network import TurnNetwork
from loadtest.scenario.utterances import FRAME_S
from rejoinder.core.audio.pcm import SAMPLE_BYTES, STT_RATE, WIRE_RATE
from rejoinder.core.capacity.sizing import Basis, ReplicaUnit, Traffic, basis_at, messages
from rejoinder.core.errors import ConfigError

HOST_CORES = 0.7
"""Maximum share of one core that a host uses. A host is one event loop on one core. Above this share, its timers are
late."""

HEADROOM = 1.3
"""Cores reserved per core used on average, for bursts of work."""

LEAST_CORES = 0.1

DELTA_S = 0.1
"""Seconds of audio in one message from the host to the client."""

TOKEN_MESSAGES_PER_S = 66.0
"""Maximum number of text deltas per second from the language model, which are coalesced over 15 ms."""

TTS_CHUNK_S = 0.2
SMALL_BYTES = 300
"""Size in bytes of a request or answer without audio: a transcript, a segment's text, or a token delta with its
frame."""

PROMPT_BYTES = 2000

VERDICT_S = 8.0
"""Maximum length in seconds of the speech that is sent for one verdict of the turn detector. Shorter utterances send
less."""


@dataclass(frozen=True, slots=True)
class LinearFit:
    """A quantity as a straight line over the number of sessions.

    Attributes:
        at_none: Value without sessions, at least 0.
        each: Increase per session, at least 0.
    """

    at_none: float
    each: float

    def at(self, sessions: float) -> float:
        """Return the value of the line at a number of sessions."""
        return self.at_none + self.each * sessions


def fit_line(sessions: list[float], values: list[float]) -> LinearFit:
    """Fit a straight line through `values` over `sessions` by least squares, with both coefficients at least 0.

    If all numbers of sessions are equal, the line has the value 0 without sessions.
    """
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
    """CPU cores, memory and maximum number of sessions of one host.

    Attributes:
        cores: CPU cores as a straight line over the number of sessions.
        memory_mb: Memory in MB as a straight line over the number of sessions.
        sessions: Maximum number of sessions within `HOST_CORES`.
        basis: PREDICTED if a host carried that many sessions while calibrating, else EXTRAPOLATED.
    """

    cores: LinearFit
    memory_mb: LinearFit
    sessions: int
    basis: Basis

    @property
    def unit(self) -> ReplicaUnit:
        """The host as a unit of a plan: slots, cores and memory with `sessions` sessions, headroom included."""
        cores = max(LEAST_CORES, self.cores.at(self.sessions) * HEADROOM)
        return ReplicaUnit("host", self.sessions, min(1.0, cores), self.memory_mb.at(self.sessions) * HEADROOM)


def host(calibration: Calibration, most: int | None = None) -> HostFootprint:
    """Return the footprint of one host, fitted to a calibration.

    Args:
        calibration: Measurements of the calibration runs.
        most: Upper limit of the number of sessions per host. None means no limit except `HOST_CORES`.

    Raises:
        ConfigError: Not even one session fits within `HOST_CORES`.
    """
    levels = calibration.levels
    sessions = [level.sessions / level.hosts for level in levels]
    cores = fit_line(sessions, [level.host_cores / level.hosts for level in levels])
    memory = fit_line(sessions, [level.host_memory_mb for level in levels])
    room = (HOST_CORES - cores.at_none) / cores.each if cores.each else math.inf
    capacity = int(min(room, most or math.inf, 10_000))
    if capacity < 1:
        raise ConfigError(
            f"a host uses {cores.at_none:.2f} cores without any session.", "Calibrate on an idle machine.", "--url"
        )
    return HostFootprint(cores, memory, capacity, basis_at(capacity, min(sessions), max(sessions)))


def cpu_per_request_s(calibration: Calibration, stage: str) -> float:
    """Return the mean CPU time of one request to a stage in seconds, over all calibration runs. 0 without requests."""
    rows = [(level.stages[stage], level.for_s) for level in calibration.levels if stage in level.stages]
    requests = sum(row.requests for row, _ in rows)
    return sum(row.cores * row.replicas * for_s for row, for_s in rows) / requests if requests else 0.0


def stage_unit(calibration: Calibration, stage: str, requests_per_s: float) -> ReplicaUnit:
    """Return cores, memory and slots of one replica of a stage, with headroom.

    `requests_per_s` is the number of requests per second that the replica serves.
    """
    memory = max(level.stages[stage].memory_mb for level in calibration.levels if stage in level.stages)
    cores = max(LEAST_CORES, cpu_per_request_s(calibration, stage) * requests_per_s * HEADROOM)
    return ReplicaUnit(stage, calibration.slots.get(stage, 1), cores, memory * HEADROOM)


def requests_per_turn(calibration: Calibration, stage: str) -> float:
    """Return the mean number of requests to a stage per turn, over all calibration runs.

    The requests to the language model are counted as turns, so the result for `llm` is 1. It is 0 without turns.
    """
    rows = [level.stages for level in calibration.levels if stage in level.stages]
    turns = sum(row["llm"].requests for row in rows)
    return sum(row[stage].requests for row in rows) / turns if turns else 0.0


def edge_traffic(calibration: Calibration) -> Traffic:
    """Return the network traffic of one session between caller and host, over TCP and IPv4 without TLS.

    Both directions have the payload that the callers measured in the run with the most sessions. The caller's messages
    have their measured rate, or that of an open microphone if the calibration's callers muted theirs between turns. The
    host's messages are counted as `DELTA_S` of an answer's audio each.

    Raises:
        ConfigError: The run has no payload or no frames in one of the directions, so its traffic is unknown.
    """
    level = calibration.most
    if min(level.in_kbps, level.out_kbps, level.frames_per_s) <= 0:
        raise ConfigError(
            f"the calibration has {level.frames_per_s:g} frames a second, {level.in_kbps:g} kbps from and "
            f"{level.out_kbps:g} kbps to each caller, so the network traffic is unknown.",
            "Calibrate again with this version.",
            field="--calibration",
        )
    frame = level.in_kbps * 1000 / 8 / level.frames_per_s
    frames_per_s = max(level.frames_per_s, 1 / FRAME_S if calibration.behavior.muted_between_turns else 0.0)
    deltas_per_s = level.audio_s / DELTA_S * level.turns_per_s / level.sessions
    delta = level.out_kbps * 1000 / 8 / deltas_per_s if deltas_per_s else 0.0
    inward = Tcp().message(round(frame), masked=True) * frames_per_s
    outward = Tcp().message(round(delta), masked=False) * deltas_per_s
    return Traffic(_kbps(inward), _kbps(outward), inward.packets, outward.packets)


def _kbps(load: NetworkLoad) -> float:
    return kbps(load.ip_bytes, 1.0)


def detector_traffic(per_s: float) -> Traffic:
    """Return the network traffic of the turn detector in the cluster, at `per_s` verdicts per second.

    The request for a verdict has `VERDICT_S` of speech, the maximum. The answer is one probability.
    """
    return messages(VERDICT_S * STT_RATE * SAMPLE_BYTES, SMALL_BYTES, per_s, per_s)


def stage_traffic(network: TurnNetwork, stage: str, turns_per_s: float, speech_s: float) -> Traffic:
    """Return the network traffic between the hosts and all replicas of a stage.

    Args:
        network: Network from which requests per turn and the length of answers are taken.
        stage: "stt", "llm" or "tts".
        turns_per_s: Turns per second of all sessions together.
        speech_s: Seconds of speech per turn.
    """
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
