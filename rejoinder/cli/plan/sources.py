"""Sources of a plan's figures: a calibration file, a running server, or published latencies."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from typing import TYPE_CHECKING

from loadtest.capacity import calibration as calibrations
from loadtest.capacity.calibrated_settings import refuse_other_engines, refuse_unnamed
from loadtest.capacity.calibration import Calibration, levels_for
from loadtest.capacity.queueing import QueueStage
from loadtest.capacity.service_times import fixed
from loadtest.capacity.turn_network import TurnNetwork
from loadtest.generator.measuring import measure
from loadtest.scenario.parsing import scenario
from rejoinder.core.capacity.providers import Choice
from rejoinder.core.errors import ConfigError
from rejoinder.core.settings.settings import Settings, parse_settings

if TYPE_CHECKING:
    from rejoinder.cli.plan.command import PlanOptions


def calibrated(options: PlanOptions, settings: Settings) -> Calibration:
    """Return the calibration in the file of `--calibration`, or from load tests of the server of `--url`.

    With `--save`, also write it to that file.

    Raises:
        ConfigError: Neither or both options are given, a run is invalid, the calibration does not name its settings or
            engines, or the server ran other engines than its settings have.
    """
    if bool(options.calibration) == bool(options.url):
        raise ConfigError(
            "a plan needs one calibration.", "Give --calibration FILE, or --url URL --knee N.", field="--calibration"
        )
    calibration = calibrations.load(options.calibration) if options.calibration else _run(options, settings)
    refuse_unnamed(calibration.settings, calibration.engines)
    refuse_other_engines(calibration.engines, parse_settings(calibration.settings))
    if options.save:
        calibrations.save(calibration, options.save)
    return calibration


def _run(options: PlanOptions, settings: Settings) -> Calibration:
    from rejoinder.cli.load.app import API_KEY
    from rejoinder.cli.plan.command import slots

    levels, engines, behavior = [], {}, None
    for sessions in levels_for(options.knee):
        fixed = {"url": options.url, "sessions": sessions, "tier": options.tier, "for_s": options.for_s}
        level = scenario(fixed | {"api_key": os.environ.get(API_KEY) or "none", "seed": sessions}, options.set_ or [])
        result, window = measure(level)
        if result.causes:
            causes = "; ".join(result.causes)
            raise ConfigError(
                f"invalid load generator at {sessions} sessions: {causes}", "Use another machine.", "--url"
            )
        measured = settings.model_dump(mode="json", exclude={"access"})  # may have the secret that signs client secrets
        refuse_unnamed(measured, result.engines)
        refuse_other_engines(result.engines, settings)
        levels.append(calibrations.level(result, window))
        engines, behavior = result.engines, level.behavior
    assert behavior is not None  # set by the loop: `levels_for` always returns three numbers of sessions
    return Calibration(
        levels=tuple(levels),
        engines=engines,
        slots=slots(settings),
        behavior=behavior,
        settings=measured,
        machine=f"{os.cpu_count()} cores, {platform.machine()}",
    )


def published(network: TurnNetwork, chosen: Mapping[str, Choice], slots: int) -> TurnNetwork:
    """Return a copy of the queue model in which each chosen stage has its provider's typical published latency.

    That latency is a fixed time, because providers publish no distributions. Other stages are unchanged.

    Args:
        network: The model of the stages' queues, fitted to a calibration.
        chosen: Provider by stage.
        slots: Number of concurrent requests of one replica of each chosen stage.
    """
    stages = {
        name: QueueStage(1, slots, fixed(choice.provider.typical_ms / 1000), getattr(network, name).hop_s)
        for name, choice in chosen.items()
    }
    return network.with_stages(stages)
