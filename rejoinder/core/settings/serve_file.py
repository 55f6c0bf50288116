"""Model of the configuration file, `ray_config.yaml`.

The file is an ordinary Ray Serve config, valid for `serve deploy`. It contains one application, Rejoinder, with
`Settings` as its `args`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from rejoinder.core.errors import ConfigError
from rejoinder.core.settings.section import Count, ListeningHost, Section
from rejoinder.core.settings.settings import Settings, config_error


class HttpOptions(Section):
    """HTTP options of Ray Serve that Rejoinder supports."""

    host: ListeningHost = "127.0.0.1"
    """IPv4 address to listen on. 0.0.0.0 accepts connections from other machines."""
    port: int = Field(8000, ge=0, le=65535)
    """TCP port to listen on. 0 takes a free port, with `rejoinder serve` only: `serve deploy` needs a number."""
    keep_alive_timeout_s: Count = 75
    """Seconds after which an idle HTTP connection is closed."""


class LoggingOptions(Section):
    """Logging options of Ray Serve, passed on unchanged."""

    encoding: Literal["TEXT", "JSON"] = "TEXT"
    """Format of log lines: plain text, or one JSON object a line."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Lowest severity that is logged."""
    enable_access_log: bool = False
    """Log every request. Off by default: each stage call is a request, dozens in a turn."""
    logs_dir: str | None = None
    """Folder for the log files; by default Ray's session folder."""


class Application(Section):
    """The Serve application of Rejoinder. Options of its deployments belong in `args`, where they are validated."""

    name: str = "rejoinder"
    """Name of the application in Ray Serve."""
    route_prefix: Literal["/"] = "/"
    """URL prefix of the application; only the root is supported."""
    import_path: Literal["deployments.app:build"] = "deployments.app:build"
    """Python path of the function that builds the application; Ray Serve requires it."""
    runtime_env: dict[str, Any] = Field(default_factory=dict)
    """Ray runtime environment of the workers, for example {working_dir: .} to ship a checkout."""
    args: Settings = Settings()
    """All settings of Rejoinder."""


class ServeFile(Section):
    """Content of a `ray_config.yaml`: options of Ray Serve, and the one application."""

    proxy_location: Literal["EveryNode", "HeadOnly", "Disabled"] = "EveryNode"
    """Nodes of the cluster on which Ray Serve runs its HTTP proxy."""
    http_options: HttpOptions = HttpOptions()
    """Where the server listens for HTTP and WebSocket connections."""
    logging_config: LoggingOptions = LoggingOptions()
    """Format and level of the log files."""
    applications: Annotated[list[Application], Field(min_length=1, max_length=1)] = Field(
        default_factory=lambda: [Application()]
    )
    """Exactly one application: Rejoinder."""

    @property
    def application(self) -> Application:
        """The only application in the file."""
        return self.applications[0]


def parse_serve_file(document: object) -> ServeFile:
    """Validate the content of a `ray_config.yaml`, parsed from YAML, and return it as a model.

    Raises:
        ConfigError: A field is invalid; the error names the first one.
    """
    if not isinstance(document, dict):
        raise ConfigError("the configuration is not a mapping.", "Start from the repository's ray_config.yaml.")
    try:
        return ServeFile.model_validate(document)
    except ValidationError as error:
        raise config_error(error, "") from None
