"""References in `llm.model`, `stt.model` and `tts.model`: a model of the store, a local path, or files on a hub."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

ModelRole = Literal["llm", "stt", "tts"]

NAME = re.compile(r"[a-z0-9][a-z0-9.-]*")
_HUB_PART = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?"
_HUB = re.compile(rf"(?P<repository>{_HUB_PART}/{_HUB_PART})(?:@(?P<revision>{_HUB_PART}))?(?P<path>(?:/{_HUB_PART})*)")
_WANTED: dict[ModelRole, str] = {
    "llm": "a GGUF file (owner/repo/file.gguf)",
    "stt": "a repository or folder with a faster-whisper model (owner/repo)",
    "tts": "a Piper voice (owner/repo/folder/voice.onnx)",
}
_SUFFIXES: dict[ModelRole, str] = {"llm": ".gguf", "tts": ".onnx"}

WHISPER_REPOSITORIES = {
    "large-v3": "Systran/faster-whisper-large-v3",
    "large-v3-turbo": "mobiuslabsgmbh/faster-whisper-large-v3-turbo",
    "turbo": "mobiuslabsgmbh/faster-whisper-large-v3-turbo",
    "distil-large-v3": "Systran/faster-distil-whisper-large-v3",
    "distil-large-v3.5": "distil-whisper/distil-large-v3.5-ct2",
}
"""Repositories on the model hub of the Whisper models that only a GPU runs in real time, by faster-whisper's names."""


class ReferenceKind(StrEnum):
    """Where a model is: NAME, an entry of the manifest; PATH, a local file or folder; HUB, files on a model hub."""

    NAME = "name"
    PATH = "path"
    HUB = "hub"


@dataclass(frozen=True, slots=True)
class ModelReference:
    """A parsed reference.

    Attributes:
        kind: Where the model is.
        text: The reference as it was written.
        repository: Hub only: "owner/repo".
        revision: Hub only: branch, tag or commit; "main" if none was written.
        path: Hub only: path of the file or folder in the repository; "" for the whole repository.
    """

    kind: ReferenceKind
    text: str
    repository: str = ""
    revision: str = "main"
    path: str = ""

    @property
    def role(self) -> ModelRole:
        """Role of a model on a hub, by the ending of its file name; "stt" for any other ending."""
        return next((role for role, suffix in _SUFFIXES.items() if self.path.endswith(suffix)), "stt")


def parse_model_reference(text: str) -> ModelReference:
    """Parse a reference to a model.

    A text that begins with `/` or `~` is a path. Any other text with a `/` names files on a hub. A text without a `/`
    is a name in the manifest, or one of faster-whisper's names of a model on the hub (`WHISPER_REPOSITORIES`).

    Raises:
        ValueError: `text` is none of these; the message says what to write instead.
    """
    if text.startswith(("/", "~")):
        return ModelReference(ReferenceKind.PATH, text)
    if text in WHISPER_REPOSITORIES:
        return ModelReference(ReferenceKind.HUB, text, WHISPER_REPOSITORIES[text])
    if NAME.fullmatch(text) and "/" not in text:
        return ModelReference(ReferenceKind.NAME, text)
    if text.startswith((".", "\\")):
        raise ValueError(
            f"{text!r} is a relative path, which every node would resolve differently: write the absolute path"
        )
    found = _HUB.fullmatch(text)
    if found is None:
        raise ValueError(
            f"{text!r} is not a model: write a name of `rejoinder models list`, an absolute path, or owner/repo/file "
            "of a model hub"
        )
    revision, path = found["revision"] or "main", found["path"].removeprefix("/")
    return ModelReference(ReferenceKind.HUB, text, found["repository"], revision=revision, path=path)


def check_model_reference(text: str, role: ModelRole) -> str:
    """Return `text` if it is a reference that an engine of `role` can load; raise ValueError with the fix if not."""
    reference = parse_model_reference(text)
    if reference.kind is ReferenceKind.HUB and reference.role != role:
        raise ValueError(f"{text!r} on a model hub is not {_WANTED[role]}: name such a file, or write an absolute path")
    return text
