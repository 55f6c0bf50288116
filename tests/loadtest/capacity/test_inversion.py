"""Tests of the inversion, which finds the smallest number of replicas per stage that meets a capacity target.

A target is a number of sessions with limits for the latency.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from loadtest.capacity.inversion import MOST_BUSY, CapacityTarget, invert, work
from loadtest.capacity.network_fit import STAGES, log_normal
from loadtest.capacity.prediction import predict
from loadtest.capacity.queueing import QueueStage
from loadtest.capacity.service_times import Curved, fixed
from loadtest.capacity.turn_network import CallerModel, ReplyModel, TurnNetwork
from rejoinder.core.capacity.budgets import Tier
from rejoinder.core.errors import ConfigError
from rejoinder.core.measuring.service_curves import ServiceCurve

NETWORK = TurnNetwork(
    stt=QueueStage(1, 2, Curved(ServiceCurve(150, 0.2))),
    llm=QueueStage(1, 4, Curved(ServiceCurve(200, 0.3))),
    tts=QueueStage(1, 4, fixed(0.06)),
    callers=CallerModel(log_normal(2.0, 0.5), fixed(3.0)),
    answer=ReplyModel(((0.05, 2.0), (0.3, 3.0)), 0.4),
    silence=fixed(0.07),
    endpoint=fixed(0.1),
    delivery=fixed(0.05),
)
TARGET = CapacityTarget(sessions=80, tier=Tier.GOOD, p95_ms=1000)


def test_the_replicas_found_are_the_fewest() -> None:
    """The simulation meets the target with the replicas found, and not with one replica less in any stage.

    Stages with one replica are not reduced.
    """
    found = invert(NETWORK, TARGET, 80)
    assert TARGET.met_by(found.prediction)
    for stage in STAGES:
        if found.needed[stage] == 1:
            continue
        less = {name: replace(getattr(NETWORK, name), replicas=count) for name, count in found.needed.items()}
        less[stage] = replace(less[stage], replicas=less[stage].replicas - 1)
        assert not TARGET.met_by(predict(replace(NETWORK, **less), 80, 60, (21, 22)))


def test_no_stage_exceeds_its_maximum_use() -> None:
    """Even with a p95 limit of 3000 ms, the mean share of busy slots is at most `MOST_BUSY` in each stage."""
    loose = replace(TARGET, tier=Tier.ACCEPTABLE, p95_ms=3000)
    assert max(invert(NETWORK, loose, 80).prediction.busy.values()) <= MOST_BUSY


def test_more_sessions_need_more() -> None:
    """Four times the sessions need more replicas, but less than four times as many plus one per stage."""
    small, large = (sum(invert(NETWORK, TARGET, n).needed.values()) for n in (40, 160))
    assert small < large < 4 * small + len(STAGES)


def test_the_work_of_a_turn() -> None:
    """With 0.5 cancelled transcripts per turn, a turn needs 1.5 transcripts, one answer and one synthesis per segment.

    `hold_s` is the mean time in seconds for which a request occupies a slot.
    """
    callers = replace(NETWORK.callers, abandoned=0.5)
    stt, llm, tts = (work(replace(NETWORK, callers=callers), stage) for stage in STAGES)
    assert (stt.requests_per_turn, llm.requests_per_turn, tts.requests_per_turn) == (1.5, 1, 2)
    assert stt.hold_s == pytest.approx(0.15 * 1.0202, rel=1e-3)
    assert llm.hold_s == pytest.approx(0.2 * 1.046 + 0.4, rel=1e-3)
    assert tts.hold_s == pytest.approx(0.06 + (0.18 + 0.28) / 2)
    assert tts.scv == pytest.approx(0)
    assert llm.scv < Curved(ServiceCurve(200, 0.3)).scv


@pytest.mark.parametrize(
    ("target", "option"), [(replace(TARGET, p95_ms=300), "--p95-ms"), (replace(TARGET, tier=Tier.EXCELLENT), "--tier")]
)
def test_a_target_below_the_unloaded_latency_is_refused(target: CapacityTarget, option: str) -> None:
    """If a single caller already misses the target, ConfigError names the command line option to change."""
    with pytest.raises(ConfigError, match=option):
        invert(NETWORK, target, 50)
