"""Errors by whose fault they are: the caller's, a backend's, or too much load.

Every error names what was wrong and what to do about it. The boundary that catches one (the wire for a
session, the command line for a user) needs only the class to know how to answer.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(eq=False)
class RejoinderError(Exception):
    """Base of all typed errors; `remedy` is one sentence a user can act on."""

    message: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.message} {self.remedy}".strip()

    def __reduce__(self) -> tuple[object, ...]:
        # Errors cross Ray as pickles; Exception's own reduce would drop the keyword fields.
        return type(self), tuple(getattr(self, name) for name in self.__dataclass_fields__)


@dataclass(eq=False)
class CallerError(RejoinderError):
    """The caller sent something we refuse; the session goes on.

    `code` and `param` are the OpenAI Realtime error fields (`param` is the dotted path of the bad field).
    """

    code: str = "invalid_value"
    param: str | None = None


@dataclass(eq=False)
class ConfigError(RejoinderError):
    """A setting is wrong; `field` is its dotted path."""

    field: str = ""

    def __str__(self) -> str:
        where = f"{self.field}: " if self.field else ""
        return f"{where}{super().__str__()}"


@dataclass(eq=False)
class BackendError(RejoinderError):
    """A stage could not do its work; another replica, or a retry later, may. `stage` and `replica` name who failed."""

    stage: str = ""
    replica: str = ""


@dataclass(eq=False)
class StageTimeout(BackendError):
    """A stage did not answer in the time it was given; with more it may."""


@dataclass(eq=False)
class DeadlineExceeded(BackendError):
    """Queued work was dropped because its deadline passed before it started."""


@dataclass(eq=False)
class ModelError(RejoinderError):
    """A model file is missing, damaged or of the wrong kind; `file`, `expected` and `found` say which."""

    file: str = ""
    expected: str = ""
    found: str = ""

    def __str__(self) -> str:
        facts = "".join(f" {k}: {v}." for k, v in (("expected", self.expected), ("found", self.found)) if v)
        return f"{self.file}: {self.message}{facts} {self.remedy}".strip()


@dataclass(eq=False)
class Overloaded(RejoinderError):
    """Refused early because a bounded resource is full; try again after `retry_after_s` seconds."""

    retry_after_s: float = 1.0
    resource: str = ""
