"""Composition root: validated settings become one Ray Serve application.

`ray_config.yaml` names `deployments.app:build` as its import path and passes its `args`. So `serve deploy
ray_config.yaml` and `rejoinder serve ray_config.yaml` build the same application. `deployments.app:app` is the
application with the default settings, for `serve run` and `serve build`, which need an application without arguments.

Settings decide which stages are deployments. By default the turn detector, speech to text, the language model and text
to speech are deployments, voice activity detection runs inside each session host, and the answer cache is off. The
number of replicas is fixed (`min_replicas` equals `max_replicas`): one each, and two for the language model. Nothing is
pinned to a GPU or a node unless `resources` says so.
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

# Number of requests that a host may have in addition to its sessions and to those of single stages: health checks,
# metrics, refusals. Serve counts a session as one request until it ends.
HTTP_HEADROOM = 32

SURGE_PERCENT = 25
"""Default of `surge_percent`: one further replica for up to four."""


def build(args: dict[str, Any]) -> Application:
    """Return the application with the settings in `args`, the section `args` of ray_config.yaml.

    Raises:
        ConfigError: If a value is invalid or a key is unknown. The error names the field.
    """
    return bind(parse_settings(args))


def bind(settings: Settings) -> Application:
    """Return the application with these settings: a deployment for each stage, and the session hosts as its ingress.

    Voice activity detection is a deployment only if `vad.placement` is "deployment". The answer cache and the backup
    language model are deployments only if they are configured.
    """
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
    return host_deployment(settings).bind(settings, handles)


def stage_deployment(cls: type, stage: StageSettings, name: str = "") -> serve.Deployment:
    """Return a stage's class as a Serve deployment with the options of its settings.

    Args:
        cls: The stage's class.
        stage: Its settings: resources, replicas or autoscaling, health checks.
        name: The deployment's name, by default the class's.
    """
    return serve.deployment(
        cls,
        name=name or cls.__name__,
        ray_actor_options=_actor(stage.reservation),
        max_ongoing_requests=stage.ongoing_limit,
        health_check_period_s=stage.health_check_period_s,
        health_check_timeout_s=stage.health_check_timeout_s,
        request_router_config=RequestRouterConfig(request_router_class=ROUTER),
        **_replicas(
            stage.autoscaling,
            StagePolicy,
            stage.reservation,
            target=min(stage.autoscaling.target_ongoing_requests, stage.places),
            queue_limit_s=stage.autoscaling.queue_delay_ms / 1000,
        ),
    )


def host_deployment(settings: Settings) -> serve.Deployment:
    """Return the session hosts as a Serve deployment with the options of the settings."""
    host = settings.host
    return serve.deployment(
        serve.ingress()(SessionHost),
        name="SessionHost",
        ray_actor_options=_actor(host.resources),
        max_ongoing_requests=host.max_sessions + settings.stage_http.most_requests + HTTP_HEADROOM,
        health_check_period_s=host.health_check_period_s,
        health_check_timeout_s=host.health_check_timeout_s,
        graceful_shutdown_timeout_s=host.graceful_shutdown_timeout_s,
        **_replicas(
            host.autoscaling,
            HostPolicy,
            host.resources,
            target=host.autoscaling.target_ongoing_requests,
            most=host.max_sessions,
            headroom=host.autoscaling.headroom,
            start_s=host.autoscaling.start_s,
            lag_limit_s=host.scale_at_loop_lag_ms / 1000,
        ),
    )


def _replicas(scaling: Autoscaling, policy: type, resources: Resources, **limits: float) -> dict[str, Any]:
    """Return the options for the number of replicas: `num_replicas` if it is fixed, else `autoscaling_config`.

    `max_surge_percent` lets a new version start before the old one stops, so that calls and requests always find a
    replica.

    Args:
        scaling: The settings. The number is fixed if `min_replicas` equals `max_replicas`.
        policy: Class of the autoscaling policy.
        resources: What each replica reserves. A GPU is seldom free for a further replica.
        limits: Keyword arguments of the policy's constructor.
    """
    surge = scaling.surge_percent
    rollout = {"max_surge_percent": (0 if resources.num_gpus else SURGE_PERCENT) if surge is None else surge}
    if scaling.max_replicas_per_node:
        rollout["max_replicas_per_node"] = scaling.max_replicas_per_node
    if scaling.min_replicas == scaling.max_replicas:
        return rollout | {"num_replicas": scaling.min_replicas}
    options = scaling.model_dump(
        exclude={"headroom", "start_s", "queue_delay_ms", "surge_percent", "max_replicas_per_node"}
    )
    autoscaling_policy = AutoscalingPolicy(policy_function=policy, policy_kwargs=limits)
    return rollout | {"autoscaling_config": AutoscalingConfig(**options, policy=autoscaling_policy)}


def _actor(resources: Resources) -> dict[str, Any]:
    """Return the `ray_actor_options` with the CPUs, GPUs, memory and custom resources that a replica reserves."""
    options: dict[str, Any] = {"num_cpus": resources.num_cpus, "num_gpus": resources.num_gpus}
    if resources.memory_mb:
        options["memory"] = resources.memory_mb * 1024 * 1024
    if resources.custom:
        options["resources"] = resources.custom
    if resources.label_selector:
        options["label_selector"] = resources.label_selector
    return options


app: Application = bind(Settings())
"""The application with the default settings, for `serve run deployments.app:app` and `serve build`."""
