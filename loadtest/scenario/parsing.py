"""Read a scenario from KEY=VALUE settings and from YAML files with the same keys.

Every field of `Scenario` is a key. A nested field has a dotted key (`behavior.think_s=1`). A duration may have a unit
(`ramp_s=2m`). A list is comma-separated (`regions=local,us-europe`).
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
"""Values of the key `codec`. The formats' own names, such as audio/pcmu, are accepted too."""

_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}
_LISTS = ("regions", "clips")
_SCENARIO = TypeAdapter(Scenario)


def seconds(text: str, field: str) -> float:
    """Return the seconds in a duration such as `60s`, `10m`, `1h` or `60`.

    Args:
        text: The duration.
        field: Name of the option or setting, for the error message.

    Raises:
        ConfigError: `text` is not a duration.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text.strip())
    if not match:
        raise ConfigError(f"{text!r} is not a duration.", "Write 60s, 10m or 1h.", field=field)
    return float(match[1]) * _UNITS[match[2]]


def scenario(fixed: dict[str, Any], settings: Iterable[str]) -> Scenario:
    """Return a scenario, built from the options of a command and from its `--set` settings.

    Args:
        fixed: Values of the fields that the command sets from its own options. A setting must not set them again.
        settings: KEY=VALUE, or @FILE.yaml with the same keys. A later setting overrides an earlier one.

    Raises:
        ConfigError: A key is unknown or fixed, a value is invalid, or a file cannot be read.
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
        raise ConfigError(
            f"{key} cannot be set here.", "Set it with the command's own options or environment variable.", "--set"
        )
    try:
        return _SCENARIO.validate_python(document | fixed)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        path = ".".join(str(part) for part in first["loc"])
        raise ConfigError(
            f"{path}: {first['msg']}.", "loadtest/scenario/scenario.py documents the keys.", field="--set"
        ) from None


def _file(path: Path) -> dict[str, Any]:
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:  # ValueError: not UTF-8, or an impossible date
        raise ConfigError(f"{path} cannot be read ({error}).", "Give the path of a YAML file.", "--set") from None
    if not isinstance(document, dict):
        raise ConfigError(f"{path} is not a mapping.", "Write KEY: VALUE lines.", field="--set")
    return document


def _put(document: dict[str, Any], key: str, value: Any) -> None:
    """Store a value in `document` under its dotted key, with one nested mapping for each part of the key.

    If the value is a mapping, each of its entries is stored under the key extended by the name of the entry.
    """
    head, dot, rest = key.partition(".")
    if dot:
        _put(_branch(document, head), rest, value)
    elif isinstance(value, dict):
        for inner, nested in value.items():
            _put(_branch(document, head), str(inner), nested)
    else:
        document[head] = _parsed(head, value)


def _branch(document: dict[str, Any], head: str) -> dict[str, Any]:
    """Return the mapping `document[head]`. Create it if it is absent. Raise ConfigError if another value is there."""
    branch = document.setdefault(head, {})
    if not isinstance(branch, dict):
        raise ConfigError(
            f"{head} already has the value {branch!r}, so its fields cannot be set.",
            f"Write {head}.FIELD=VALUE.",
            field="--set",
        )
    return branch


def _value(key: str, text: str) -> Any:
    try:
        return yaml.safe_load(text) if text else ""
    except (ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"{key}={text} is not valid YAML ({error}).", "Quote the value.", field="--set") from None


def _parsed(key: str, value: Any) -> Any:
    """Return the value of the setting `key`, with short forms converted to the types of `Scenario`.

    Short forms are durations with a unit (to seconds), comma-separated lists, and short names of audio formats.
    """
    if key.endswith("_s") and isinstance(value, str):
        return seconds(value, f"--set {key}")
    if key in _LISTS and isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    if key == "codec" and value in CODECS:
        return CODECS[value]
    return value
