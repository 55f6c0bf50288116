"""Typed errors, one class for each kind of cause: the caller, the configuration, a backend, a model file, overload.

Every error states what is wrong and what to do about it. The wire protocol reports errors to a client, and the command
line reports them to a user. The class of an error alone decides how it is reported.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(eq=False)
class RejoinderError(Exception):
    """Base of all typed errors.

    Attributes:
        message: What is wrong.
        remedy: What the user can do about it, in one sentence; "" if nothing.
    """

    message: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.message} {self.remedy}".strip()

    def __reduce__(self) -> tuple[object, ...]:
        # Ray pickles errors to pass them between processes. Exception.__reduce__ would not pickle all fields.
        return type(self), tuple(getattr(self, name) for name in self.__dataclass_fields__)


@dataclass(eq=False)
class CallerError(RejoinderError):
    """Invalid input from the caller; the session continues.

    Attributes:
        code: `code` of the OpenAI Realtime error.
        param: Dotted path of the bad field, `param` of the OpenAI Realtime error.
    """

    code: str = "invalid_value"
    param: str | None = None


@dataclass(eq=False)
class ConfigError(RejoinderError):
    """Invalid setting, command-line option or configuration file.

    Attributes:
        field: Dotted path of the setting, name of the option, or path of the file.
    """

    field: str = ""

    def __str__(self) -> str:
        where = f"{self.field}: " if self.field else ""
        return f"{where}{super().__str__()}"


@dataclass(eq=False)
class BackendError(RejoinderError):
    """Failure of a stage; a retry, or another replica, may succeed.

    Attributes:
        stage: Stage that failed, for example "stt".
        replica: Replica that failed; "" if unknown.
    """

    stage: str = ""
    replica: str = ""


@dataclass(eq=False)
class StageTimeout(BackendError):
    """Failure of a stage that did not answer within its timeout."""


@dataclass(eq=False)
class BadResponse(BackendError):
    """Response of a server that does not follow its protocol, such as an HTML page; its address may be wrong."""


@dataclass(eq=False)
class DeadlineExceeded(BackendError):
    """Failure of a queued request that was dropped because its deadline passed before its work started."""


@dataclass(eq=False)
class ModelError(RejoinderError):
    """Model file that is missing, damaged or of the wrong kind.

    Attributes:
        file: Path or name of the file or model.
        expected: What the file should contain, for example a SHA-256; "" if not applicable.
        found: What the file contains, in the same form as `expected`; "" if not applicable.
    """

    file: str = ""
    expected: str = ""
    found: str = ""

    def __str__(self) -> str:
        facts = "".join(f" {k}: {v}." for k, v in (("expected", self.expected), ("found", self.found)) if v)
        return f"{self.file}: {self.message}{facts} {self.remedy}".strip()


@dataclass(eq=False)
class Overloaded(RejoinderError):
    """Refusal of a request because a limited resource is full.

    Attributes:
        retry_after_s: Seconds after which the caller should retry.
        resource: Resource that is full, for example "sessions".
        shared: True if every replica would refuse, because all of them use the same full server. Then no request may be
            sent for `retry_after_s`, not even to another replica.
    """

    retry_after_s: float = 1.0
    resource: str = ""
    shared: bool = False
