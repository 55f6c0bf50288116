"""Compares the settings of a plan with those that the calibration measured.

A plan is about the system that was measured: with another engine, model or setting, its service times say nothing.
Sizes may differ, because the plan sets them: replicas, resources, and the calls and requests of one replica.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from loadtest.capacity.calibration import Calibration
from rejoinder.core.errors import ConfigError
from rejoinder.core.settings.settings import Settings, parse_settings

STAGES = ("stt", "llm", "tts")

SIZES = frozenset({"autoscaling", "resources", "max_ongoing_requests", "max_sessions"})
"""Settings of a deployment that a plan computes. The share of a GPU is compared separately (`--gpus`)."""

UNRELATED = frozenset({"access", "limits", "models", "regions", "tls"})
"""Sections that do not change how long a request takes: who may connect, and where model files are."""

SIGNS = {
    "emulated": "emulated ",
    "whisper": "(ctranslate2)",
    "embedded": "(llama.cpp)",
    "vllm": "(vLLM",
    "openai_api": "(OpenAI API)",
    "piper": "piper ",
}
"""Part of the name that a running engine reports, by its value of the setting `engine`."""

_ABSENT = "absent"


def differing(calibrated: Settings, planned: Settings) -> list[str]:
    """Return each setting that differs, as text such as "llm.model: x was calibrated, y is planned".

    `SIZES` and the sections in `UNRELATED` are left out.
    """
    was, now = _flat(calibrated), _flat(planned)
    return [
        f"{name}: {_text(was.get(name))} was calibrated, {_text(now.get(name))} is planned"
        for name in dict.fromkeys((*was, *now))
        if was.get(name) != now.get(name)
    ]


def _flat(settings: Settings) -> dict[str, Any]:
    """Return the compared settings by their dotted names, such as "llm.model"."""
    document = settings.model_dump(mode="json", exclude=set(UNRELATED))
    return {
        name: value
        for section, values in document.items()
        for name, value in _leaves(section, {key: v for key, v in (values or {}).items() if key not in SIZES})
    }


def _leaves(prefix: str, values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _leaves(f"{prefix}.{key}", value)
        else:
            yield f"{prefix}.{key}", value


def _text(value: object) -> str:
    if value in ("", {}, [], None):
        return _ABSENT
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def refuse_other_settings(calibration: Calibration, planned: Settings) -> None:
    """Raise ConfigError if the planned settings are not the calibrated ones. The error names each that differs."""
    if found := differing(parse_settings(calibration.settings), planned):
        raise ConfigError(
            f"the calibration is of other settings: {'; '.join(found)}.",
            "Leave --config out to plan the calibrated settings, or calibrate the file that you want to deploy.",
            field="--config",
        )


def refuse_unnamed(settings: Mapping[str, Any], engines: Mapping[str, str]) -> None:
    """Raise ConfigError if a calibration does not say what it measured.

    A plan from it would have the default settings and engines, which nobody measured.

    Args:
        settings: Settings of the calibrated deployment.
        engines: Name of each stage's engine, as the server reported it.
    """
    missing = [*([] if settings else ["the settings"]), *(f"the engine of {s}" for s in STAGES if not engines.get(s))]
    if missing:
        raise ConfigError(
            f"the calibration does not name {', '.join(missing)}, so what it measured is unknown.",
            "Calibrate again with `rejoinder plan --url URL --knee N --config FILE --save FILE`.",
            field="--calibration",
        )


def refuse_other_engines(engines: Mapping[str, str], settings: Settings) -> None:
    """Raise ConfigError if the server ran other engines than the settings have. The error names each stage.

    Args:
        engines: Name of each stage's engine, as the server reported it. A stage without a name is not compared.
        settings: Settings that the server is said to have.
    """
    configured = {"stt": settings.stt.engine, "llm": settings.llm.engine, "tts": settings.tts.engine}
    found = [
        f"{stage}.engine is {configured[stage]}, but the server ran {engines[stage]!r}"
        for stage in STAGES
        if engines.get(stage) and SIGNS[configured[stage]] not in engines[stage]
    ]
    if found:
        raise ConfigError(
            f"the server has not the settings of the calibration: {'; '.join(found)}.",
            "Give --config the file that the server serves; `rejoinder serve --emulate` changes the engines of a file.",
            field="--config",
        )
