"""Read a `ray_config.yaml`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from rejoinder.core.errors import ConfigError
from rejoinder.core.settings.serve_file import ServeFile, parse_serve_file


class UniqueKeyLoader(yaml.SafeLoader):
    """Safe loader that refuses a mapping with the same key twice. YAML forbids it, but PyYAML keeps the last value.

    Upstream: https://github.com/yaml/pyyaml/issues/165
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Return the mapping of a node.

        Args:
            node: The node of the document.
            deep: Whether nested values are constructed at once. PyYAML passes it.

        Raises:
            yaml.constructor.ConstructorError: A key is there twice.
        """
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                name = (key.tag, key.value)
                if name in seen:
                    problem = f"the key {key.value!r} is there twice"
                    raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
                seen.add(name)
        return super().construct_mapping(node, deep)


def read_config(path: Path | None) -> ServeFile:
    """Return a validated `ray_config.yaml`; the defaults if `path` is None.

    Raises:
        ConfigError: The file cannot be read, is not UTF-8 or YAML, has a key twice, or has an invalid field.
    """
    return ServeFile() if path is None else parse_serve_file(read_yaml(path))


def read_yaml(path: Path) -> Any:
    """Return the content of a YAML file.

    Raises:
        ConfigError: The file cannot be read, is not UTF-8 or YAML, or has a key twice. Its field is the path.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
        return yaml.load(text, UniqueKeyLoader)  # a subclass of SafeLoader
    except OSError as error:
        raise ConfigError(f"cannot be read ({error.strerror}).", "Name an existing file.", field=str(path)) from error
    except UnicodeDecodeError as error:
        raise ConfigError("is not UTF-8 text.", "Save the file in the encoding UTF-8.", field=str(path)) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date such as 2026-13-01
        raise ConfigError("is not YAML.", _place(error), field=str(path)) from error


def _place(error: Exception) -> str:
    """Return what PyYAML says about the error, with the line and column, in one sentence."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    if mark is None or problem is None:
        return f"{' '.join(str(error).split())[:200]}."
    return f"Line {mark.line + 1}, column {mark.column + 1}: {problem}."
