"""Settings of prepared phrases that a caller hears before an answer: openings, and lead-ins while a tool runs."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints, model_validator

from rejoinder.core.settings.section import Section
from rejoinder.core.settings.tools.servers import HttpTool, McpServer

Words = Annotated[str, StringConstraints(min_length=1, max_length=100, strip_whitespace=True)]


class Opening(Section):
    """Prepared first words of a reply. They must be a suitable beginning for any answer of the language model."""

    say: Annotated[str, StringConstraints(min_length=1, max_length=200, strip_whitespace=True)]
    """Text to speak. It is synthesized when a host starts."""
    when: Annotated[tuple[Words, ...], Field(max_length=32)] = ()
    """Words or phrases. The opening is used if the caller's words contain one of them.
    Empty: it is used for every text of the caller that ends with a question mark.
    """


Openings = Annotated[tuple[Opening, ...], Field(max_length=32)]
"""Openings in order of preference."""


Phrase = Annotated[str, StringConstraints(min_length=1, max_length=200, strip_whitespace=True)]


class ToolSettings(Section):
    """Tools: functions that the language model calls, in the client or on servers of the operator."""

    lead_in_after_ms: float = Field(1200, ge=0, le=60_000)
    """Milliseconds for which the client may run tools in silence. If a result is still missing then, one of `lead_ins`
    is spoken, once. 0: never. A call before which the model has spoken gets no lead-in.
    """
    lead_ins: Annotated[tuple[Phrase, ...], Field(max_length=32)] = ("One moment, please.", "Let me look that up.")
    """Phrases that are spoken while a tool runs, in rotation. They are synthesized when a host starts. Empty: none."""
    max_call_tokens: int = Field(256, ge=16, le=4096)
    """Maximum number of tokens of the calls of one answer, besides the tokens of its text. It does not apply if the
    client sets `max_output_tokens`, which includes calls.
    """

    http: Annotated[tuple[HttpTool, ...], Field(max_length=32)] = ()
    """Tools that this system calls over HTTP. Every conversation has them."""
    mcp_servers: Annotated[tuple[McpServer, ...], Field(max_length=16)] = ()
    """MCP servers whose tools this system calls. They need the extra `mcp`: `pip install -e '.[mcp]'` in the checkout.
    """

    @model_validator(mode="after")
    def _unique(self) -> ToolSettings:
        for kind, names in (
            ("http", [tool.name for tool in self.http]),
            ("mcp_servers", [each.label for each in self.mcp_servers]),
        ):
            if twice := next((name for name in names if names.count(name) > 1), None):
                raise ValueError(f"{kind} has {twice} twice: give each one a name of its own")
        return self

    @property
    def spoken(self) -> tuple[str, ...]:
        """The phrases that are synthesized when a host starts."""
        return self.lead_ins if self.lead_in_after_ms else ()
