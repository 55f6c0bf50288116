"""Settings of tools that the server calls: single HTTP tools, and the tools of MCP servers."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, model_validator

from rejoinder.core.settings.section import Positive, Section, ServerUrl

ToolName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
HTTP_LABEL = "http"
"""Label under which clients see the HTTP tools."""


class HttpTool(Section):
    """A tool that is one HTTP request. The arguments are its JSON body, or with GET its query."""

    name: ToolName
    """Name of the tool, for the language model. The tool of a client with the same name comes first."""
    description: str = Field(max_length=4000)
    """What the tool does and when to call it, for the language model."""
    parameters: dict[str, Any] = Field(default_factory=dict)
    """JSON schema of the arguments, an object. Empty: the tool takes none."""
    url: ServerUrl
    """Address of the request. The model's arguments never become a part of it before the query."""
    method: Literal["POST", "GET"] = "POST"
    """HTTP method of the request."""
    headers_env: dict[str, str] = Field(default_factory=dict)
    """Headers of the request, each with the name of the environment variable of the hosts that has its value."""
    timeout_s: Positive = 10.0
    """Seconds after which the call has failed, and the model is told so."""
    result_bytes: int = Field(16_384, ge=256, le=1_048_576)
    """Maximum size of a result in bytes. The rest is cut off, and the model is told so."""

    @model_validator(mode="after")
    def _has_address(self) -> HttpTool:
        if not self.url:
            raise ValueError(f"the HTTP tool {self.name} has no url: name the address of its request")
        return self


class McpServer(Section):
    """An MCP server whose tools the language model may call: at an address (streamable HTTP), or a program (stdio)."""

    label: ToolName
    """Name of the server, which clients see and use."""
    url: ServerUrl = ""
    """Address of the server's streamable HTTP endpoint. Either this or `command` is set."""
    command: tuple[Annotated[str, StringConstraints(min_length=1)], ...] = ()
    """Program and arguments that each host starts, and that speaks MCP over its standard input and output."""
    environment: tuple[str, ...] = ()
    """Names of the environment variables of the host that the program gets. It gets no others but PATH and HOME."""
    token_env: str = ""
    """Environment variable of the hosts with the bearer token for `url`. Empty: none is sent."""
    allowed_tools: tuple[str, ...] = ()
    """Names of the tools that may be called. Empty: all of the server's."""
    sessions: Literal["all", "requested"] = "all"
    """Which conversations have its tools: all, or those whose client requests it with a tool of type mcp."""
    connect_timeout_s: Positive = 5.0
    """Seconds for the connection to the server, or the start of the program, and for the list of its tools."""
    timeout_s: Positive = 15.0
    """Seconds after which a call has failed, and the model is told so."""
    result_bytes: int = Field(16_384, ge=256, le=1_048_576)
    """Maximum size of a result in bytes. The rest is cut off, and the model is told so."""

    @model_validator(mode="after")
    def _one_way(self) -> McpServer:
        if bool(self.url) == bool(self.command):
            raise ValueError(f"the MCP server {self.label} needs either url or command")
        if self.label == HTTP_LABEL:
            raise ValueError(f"the label {HTTP_LABEL} is that of the HTTP tools: choose another one")
        return self
