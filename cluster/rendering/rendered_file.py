"""Files that are rendered from a launch description, and the function that writes them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from rejoinder.core.errors import ConfigError

MARK = "Written by `rejoinder launch render`"


@dataclass(frozen=True, slots=True)
class RenderedFile:
    """A file to write.

    Attributes:
        path: Path in the output folder, with slashes.
        text: Content.
        executable: Whether the file is a program.
        private: Whether only its owner may read the file.
    """

    path: str
    text: str
    executable: bool = False
    private: bool = False


def yaml_file(path: str, documents: Iterable[Mapping[str, Any]], note: str) -> RenderedFile:
    """Return a YAML file of one or more documents.

    Args:
        path: Path in the output folder.
        documents: Content of the documents.
        note: First line, a comment.
    """
    text = yaml.dump_all(documents, Dumper=_ReadableDumper, sort_keys=False, width=120)
    return RenderedFile(path, f"# {note}\n{text}")


def write_files(files: Iterable[RenderedFile], folder: Path) -> None:
    """Write files into a folder, which is created if necessary. Files of the same names are replaced.

    Raises:
        ConfigError: The folder cannot be written.
    """
    for file in files:
        path = folder / file.path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(mode=0o600)  # so that nobody else reads a private file before its mode is set
            path.write_text(file.text, encoding="utf-8")
            path.chmod(
                (0o700 if file.executable else 0o600) | (0 if file.private else 0o055 if file.executable else 0o044)
            )
        except OSError as error:
            raise ConfigError(
                f"cannot be written ({error.strerror}).", "Name another folder.", field=str(path)
            ) from error


class _ReadableDumper(yaml.SafeDumper):
    """Dumper that writes text of several lines as a block, and equal objects in full instead of as references."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


_ReadableDumper.add_representer(str, _text)
