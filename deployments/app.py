"""The composition root: from validated settings to one Serve application.

`build` is what `ray_config.yaml` names as import_path, so `serve deploy` and `rejoinder serve` build the same thing.
"""

from __future__ import annotations

from typing import Any

from ray import serve
from ray.serve import Application
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy, RequestRouterConfig

from deployments.answer_cache import AnswerCache
from deployments.engines.emulated import EmulatedStt, EmulatedTts
from deployments.llm import Llm
from deployments.serving.autoscaling import HostPolicy, StagePolicy
from deployments.serving.placements import ROUTER
from deployments.session_host import SessionHost
from deployments.stt import Stt
from deployments.tts import Tts
from deployments.turn_detector import TurnDetector
from deployments.vad import Vad
from rejoinder.core.settings.settings import Autoscaling, Resources, Settings, StageSettings, parse_settings

# A host answers health and metrics beside its sessions, each of which is one ongoing request for life.
HTTP_HEADROOM = 32


def build(args: dict[str, Any]) -> Application:
    """The application for the `args` of ray_config.yaml; raises ConfigError naming the field."""
    return bind(parse_settings(args))


def bind(settings: Settings) -> Application:
    """Every stage as its own deployment, and the hosts in front of them."""
    stages: dict[str, tuple[str, type, StageSettings]] = {
        "turn_detector": ("TurnDetector", TurnDetector, settings.turn_detector),
        "stt": ("Stt", EmulatedStt if settings.stt.engine == "emulated" else Stt, settings.stt),
        "llm": ("Llm", Llm, settings.llm),
        "tts": ("Tts", EmulatedTts if settings.tts.engine == "emulated" else Tts, settings.tts),
    }
    if settings.vad.placement == "deployment":
        stages["vad"] = ("Vad", Vad, settings.vad)
    if settings.answer_cache.enabled:
        stages["answer_cache"] = ("AnswerCache", AnswerCache, settings.answer_cache)
    handles = {key: stage_deployment(cls, stage, name).bind(settings) for key, (name, cls, stage) in stages.items()}
    if settings.llm_backup:
        backup = stage_deployment(Llm, settings.llm_backup, "LlmBackup")
        handles["llm_backup"] = backup.bind(settings.model_copy(update={"llm": settings.llm_backup}))
    return _host(settings).bind(settings, handles)


def stage_deployment(cls: type, stage: StageSettings, name: str = "") -> serve.Deployment:
    """A stage's plain class as a Serve deployment (named as the class, or `name`), with its configuration's options."""
    return serve.deployment(
        cls,
        name=name or cls.__name__,
        ray_actor_options=_actor(stage.reservation),
        max_ongoing_requests=stage.most_ongoing,
        health_check_period_s=stage.health_check_period_s,
        health_check_timeout_s=stage.health_check_timeout_s,
        request_router_config=RequestRouterConfig(request_router_class=ROUTER),
        **_replicas(stage.autoscaling, StagePolicy, queue_limit_s=stage.autoscaling.queue_delay_ms / 1000),
    )


def _host(settings: Settings) -> serve.Deployment:
    host = settings.host
    return serve.deployment(
        serve.ingress()(SessionHost),
        name="SessionHost",
        ray_actor_options=_actor(host.resources),
        max_ongoing_requests=host.max_sessions + HTTP_HEADROOM,
        health_check_period_s=host.health_check_period_s,
        health_check_timeout_s=host.health_check_timeout_s,
        graceful_shutdown_timeout_s=host.graceful_shutdown_timeout_s,
        **_replicas(
            host.autoscaling,
            HostPolicy,
            most=host.max_sessions,
            headroom=host.autoscaling.headroom,
            lag_limit_s=host.scale_at_loop_lag_ms / 1000,
        ),
    )


def _replicas(scaling: Autoscaling, policy: type, **limits: float) -> dict[str, Any]:
    if scaling.min_replicas == scaling.max_replicas:
        return {"num_replicas": scaling.min_replicas}
    options = scaling.model_dump(exclude={"headroom", "queue_delay_ms"})
    limits = {"target": scaling.target_ongoing_requests, **limits}
    rule = AutoscalingPolicy(policy_function=policy, policy_kwargs=limits)
    return {"autoscaling_config": AutoscalingConfig(**options, policy=rule)}


def _actor(resources: Resources) -> dict[str, Any]:
    options: dict[str, Any] = {"num_cpus": resources.num_cpus, "num_gpus": resources.num_gpus}
    if resources.memory_mb:
        options["memory"] = resources.memory_mb * 1024 * 1024
    if resources.custom:
        options["resources"] = resources.custom
    if resources.label_selector:
        options["label_selector"] = resources.label_selector
    return options
