"""Reading of YAML files that people write, with errors that name the file, the fault and the fix."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from rejoinder.core.errors import ConfigError


def read_yaml(path: Path) -> Any:
    """Return the content of a YAML file.

    Raises:
        ConfigError: The file cannot be read, is not UTF-8, is not YAML, or has a key twice in one mapping.
    """
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeys)  # a SafeLoader
    except OSError as error:
        raise ConfigError(f"cannot be read ({error.strerror}).", "Name an existing file.", field=str(path)) from error
    except UnicodeDecodeError as error:
        raise ConfigError("is not UTF-8 text.", "Save it as UTF-8.", field=str(path)) from error
    except yaml.YAMLError as error:
        raise ConfigError("is not YAML.", " ".join(str(error).split()), field=str(path)) from error


class _UniqueKeys(yaml.SafeLoader):
    """Loader that refuses a mapping with the same key twice. The stock loader silently uses the last value."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            # The tag distinguishes 1 from "1". Keys of a configuration are scalars; others are refused by the model.
            key = f"{key_node.tag} {key_node.value}" if isinstance(key_node, yaml.ScalarNode) else ""
            if key in seen:
                raise yaml.YAMLError(f"Line {key_node.start_mark.line + 1} repeats the key {key_node.value!r}.")
            seen |= {key} - {""}
        return super().construct_mapping(node, deep)
