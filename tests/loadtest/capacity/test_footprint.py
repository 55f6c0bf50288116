"""Tests of the cores, memory and network traffic of hosts and replicas, as computed from a calibration."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from loadtest.capacity import footprint
from loadtest.capacity.calibration import Calibration, Level, StageLevel, TimeDistribution
from loadtest.capacity.queueing import QueueStage
from loadtest.capacity.service_times import fixed
from loadtest.capacity.turn_network import CallerModel, ReplyModel, TurnNetwork
from loadtest.scenario.scenario import CallerBehavior
from rejoinder.core.capacity.sizing import Basis
from rejoinder.core.errors import ConfigError

STAGE = QueueStage(1, 4, fixed(0.1))
NETWORK = TurnNetwork(
    STAGE,
    STAGE,
    STAGE,
    callers=CallerModel(fixed(2), fixed(3), abandoned=0.5),
    answer=ReplyModel(((0.05, 2.0), (0.2, 3.0)), 0.3),
)


def level(sessions: int, host_cores: float | None = None) -> Level:
    points = ((0.0, 0.1), (1.0, 0.3))
    stage = StageLevel(
        2,
        requests=sessions * 15.0,
        served=sessions * 15,
        service_mean_s=0.2,
        service=points,
        queue_mean_s=0.0,
        in_service=0.5,
        cores=0.1 * sessions / 10,
        memory_mb=400,
    )
    return Level(
        sessions=sessions, turns=sessions * 10, for_s=100, p50_ms=500, p95_ms=600, p99_ms=700, audio_s=5.0,
        parts={"voice_to_voice": TimeDistribution(0.5, points)},
        stages={"stt": stage, "llm": replace(stage, requests=sessions * 10.0)},
        host_cores=0.05 + 0.01 * sessions if host_cores is None else host_cores,
        host_memory_mb=250 + 1.5 * sessions, in_kbps=560, out_kbps=200, frames_per_s=50,
    )  # fmt: skip


CALIBRATION = Calibration((level(10), level(20), level(30)), {}, {"stt": 4}, CallerBehavior())


def test_a_host_is_filled_to_its_share_of_a_core() -> None:
    """A host that uses 0.05 cores plus 0.01 per session is filled to 0.7 cores, which are 65 sessions.

    More than the 30 measured sessions are EXTRAPOLATED, fewer are PREDICTED. `unit` has 30% more cores and memory.
    """
    host = footprint.host(CALIBRATION)
    assert (host.sessions, host.basis) == (65, Basis.EXTRAPOLATED)
    assert footprint.host(CALIBRATION, most=25).basis is Basis.PREDICTED
    unit = footprint.host(CALIBRATION, most=20).unit
    assert unit.cores == pytest.approx(0.25 * 1.3)
    assert unit.memory_mb == pytest.approx(280 * 1.3)


def test_two_hosts_are_each_half() -> None:
    """If the calibration had two hosts, the capacity of one host is computed from half of the sessions and cores."""
    levels = tuple(replace(level(n), sessions=2 * n, host_cores=2 * level(n).host_cores, hosts=2) for n in (10, 20, 30))
    assert footprint.host(replace(CALIBRATION, levels=levels)).sessions == 65


def test_a_host_without_room_is_refused() -> None:
    """If a host would use its share of a core even without any session, ConfigError is raised."""
    busy = replace(CALIBRATION, levels=(level(1, 0.8), level(2, 0.9), level(3, 1.0)))
    with pytest.raises(ConfigError, match="without any session"):
        footprint.host(busy)


def test_a_replicas_cores_are_its_requests() -> None:
    """A replica's cores are CPU seconds per request times requests per second, plus 30% headroom, but at least 0.1."""
    per_request_s = footprint.cpu_per_request_s(CALIBRATION, "stt")
    assert per_request_s == pytest.approx(2 * 100 * (0.1 + 0.2 + 0.3) / (15 * 60))
    assert footprint.stage_unit(CALIBRATION, "stt", 5).cores == pytest.approx(per_request_s * 5 * 1.3)
    assert footprint.stage_unit(CALIBRATION, "stt", 0.01).cores == 0.1
    assert footprint.requests_per_turn(CALIBRATION, "stt") == pytest.approx(1.5)


def test_a_session_at_the_edge_has_bytes_in_and_out() -> None:
    """A session's traffic is the measured payload of both directions plus at most 10% for headers.

    50 messages per second come in. 5,000 sessions with 560 kbps in and 200 kbps out are 3.8 to 4.2 Gbps.
    """
    traffic = footprint.edge_traffic(CALIBRATION)
    assert traffic.in_pps == pytest.approx(50)
    assert 560 < traffic.in_kbps < 560 * 1.1
    assert 200 < traffic.out_kbps < 200 * 1.1
    assert 3800 < traffic.times(5000).mbps < 4200


@pytest.mark.parametrize("missing", ["frames_per_s", "in_kbps", "out_kbps"])
def test_a_calibration_without_frames_is_refused(missing: str) -> None:
    """Without the count of frames, or the payload of one direction, the traffic is unknown: ConfigError is raised."""
    nothing: dict[str, Any] = {missing: 0.0}
    levels = tuple(replace(level(n), **nothing) for n in (10, 20, 30))
    with pytest.raises(ConfigError, match="the network traffic is unknown"):
        footprint.edge_traffic(replace(CALIBRATION, levels=levels))


def test_muted_callers_are_planned_with_an_open_microphone() -> None:
    """Callers who sent 20 frames a second, because they mute between turns, are planned with 50 a second."""
    levels = tuple(replace(level(n), frames_per_s=20.0, in_kbps=224.0) for n in (10, 20, 30))
    muted = replace(CALIBRATION, levels=levels, behavior=CallerBehavior(muted_between_turns=True))
    assert footprint.edge_traffic(muted).in_pps == pytest.approx(50)
    assert 560 < footprint.edge_traffic(muted).in_kbps < 560 * 1.1


def test_traffic_inside_the_cluster() -> None:
    """Speech to text receives the audio of every transcript, cancelled transcripts included.

    Text to speech sends the audio of the answers. Rates are within 5% of the audio's bit rate.
    """
    stt, tts = (footprint.stage_traffic(NETWORK, stage, 10.0, 3.0) for stage in ("stt", "tts"))
    assert stt.in_kbps == pytest.approx(10 * 1.5 * 3 * 16_000 * 16 / 1000, rel=0.05)
    assert tts.out_kbps == pytest.approx(10 * 5 * 24_000 * 16 / 1000, rel=0.05)
    assert footprint.stage_traffic(NETWORK, "llm", 10.0, 3.0).out_pps > 10
    assert footprint.detector_traffic(2.0).in_kbps == pytest.approx(2 * 8 * 16_000 * 16 / 1000, rel=0.05)
