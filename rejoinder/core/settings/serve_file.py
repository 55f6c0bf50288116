"""The one configuration file, `ray_config.yaml`: a stock Ray Serve config (valid for `serve deploy`) whose one
application is Rejoinder, with our `Settings` as its `args`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from rejoinder.core.settings.settings import Count, Section, Settings, config_error


class HttpOptions(Section):
    """Serve's HTTP options that we support."""

    host: str = "127.0.0.1"
    # 0 takes a free port (`rejoinder serve` only; Serve itself wants a number).
    port: int = Field(8000, ge=0, le=65535)
    keep_alive_timeout_s: Count = 75


class LoggingOptions(Section):
    encoding: Literal["TEXT", "JSON"] = "TEXT"
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    enable_access_log: bool = False
    logs_dir: str | None = None


class Application(Section):
    """The one Serve application. Per-deployment options belong in `args`, where they are validated."""

    name: str = "rejoinder"
    route_prefix: Literal["/"] = "/"
    import_path: Literal["deployments.app:build"] = "deployments.app:build"
    runtime_env: dict[str, Any] = Field(default_factory=dict)
    args: Settings = Settings()


class ServeFile(Section):
    """A whole `ray_config.yaml`."""

    proxy_location: Literal["EveryNode", "HeadOnly", "Disabled"] = "EveryNode"
    http_options: HttpOptions = HttpOptions()
    logging_config: LoggingOptions = LoggingOptions()
    applications: Annotated[list[Application], Field(min_length=1, max_length=1)] = Field(
        default_factory=lambda: [Application()]
    )

    @property
    def application(self) -> Application:
        return self.applications[0]


def parse_serve_file(document: object) -> ServeFile:
    """Validate a parsed `ray_config.yaml`; raises ConfigError naming the first bad field."""
    try:
        return ServeFile.model_validate(document)
    except ValidationError as error:
        raise config_error(error, "") from None
