"""Scenarios as people write them: KEY=VALUE, or a YAML file of the same keys. Every field of `Scenario` is a key.

Nested fields are dotted (`behavior.think_s=1`), durations may have a unit (`ramp_s=2m`), lists are comma-separated.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from loadtest.scenario.scenario import Scenario
from rejoinder.core.errors import ConfigError
from rejoinder.core.wire.formats import AudioFormat

CODECS = {"pcm16": AudioFormat.PCM, "pcmu": AudioFormat.PCMU, "pcma": AudioFormat.PCMA}
_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}
_LISTS = ("regions", "clips")
_SCENARIO = TypeAdapter(Scenario)


def seconds(text: str, field: str) -> float:
    """`60s`, `10m`, `1h` or plain seconds; raises ConfigError naming the field."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text.strip())
    if not match:
        raise ConfigError(f"{text!r} is no duration.", "Write 60s, 10m or 1h.", field=field)
    return float(match[1]) * _UNITS[match[2]]


def scenario(fixed: dict[str, Any], settings: Iterable[str]) -> Scenario:
    """The scenario of `fixed` fields and of settings, each KEY=VALUE or @FILE.yaml; later ones win.

    A setting may not be one of `fixed`, which come from the command. Raises ConfigError naming the key.
    """
    document: dict[str, Any] = {}
    for setting in settings:
        if setting.startswith("@"):
            for key, value in _file(Path(setting[1:])).items():
                _put(document, str(key), value)
        else:
            key, equals, text = setting.partition("=")
            if not equals:
                raise ConfigError(f"{setting!r} is not KEY=VALUE.", "Write think_s=1, or @FILE.yaml.", field="--set")
            _put(document, key.strip(), _value(key, text))
    for key in document.keys() & fixed.keys():
        raise ConfigError(f"{key} is not set here.", "It comes from the command's own options.", field="--set")
    try:
        return _SCENARIO.validate_python(document | fixed)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        path = ".".join(str(part) for part in first["loc"])
        raise ConfigError(
            f"{path}: {first['msg']}.", "See loadtest/scenario/scenario.py for the keys.", field="--set"
        ) from None


def _file(path: Path) -> dict[str, Any]:
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} cannot be read ({error}).", "Name a YAML file.", field="--set") from None
    if not isinstance(document, dict):
        raise ConfigError(f"{path} is no mapping.", "Write KEY: VALUE lines.", field="--set")
    return document


def _put(document: dict[str, Any], key: str, value: Any) -> None:
    head, dot, rest = key.partition(".")
    if dot:
        _put(_branch(document, head), rest, value)
    elif isinstance(value, dict):
        for inner, nested in value.items():
            _put(_branch(document, head), str(inner), nested)
    else:
        document[head] = _parsed(head, value)


def _branch(document: dict[str, Any], head: str) -> dict[str, Any]:
    found = document.setdefault(head, {})
    if not isinstance(found, dict):
        raise ConfigError(f"{head} is {found!r}, and cannot have fields.", f"Write {head}.FIELD=VALUE.", field="--set")
    return found


def _value(key: str, text: str) -> Any:
    try:
        return yaml.safe_load(text) if text else ""
    except yaml.YAMLError as error:
        raise ConfigError(f"{key}={text} cannot be read ({error}).", "Quote the value.", field="--set") from None


def _parsed(key: str, value: Any) -> Any:
    if key.endswith("_s") and isinstance(value, str):
        return seconds(value, f"--set {key}")
    if key in _LISTS and isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    if key == "codec" and value in CODECS:
        return CODECS[value]
    return value
