"""Settings of the HTTP routes that serve single stages: transcriptions, speech and chat completions."""

from __future__ import annotations

from pydantic import Field

from rejoinder.core.settings.section import Count, Positive, Section


class StageHttpSettings(Section):
    """HTTP routes of single stages (docs/how-to/stage-http.md). They use the engines that calls use.

    Calls come first: a host refuses these requests with 503 while calls need the whole capacity of the stages.
    """

    enabled: bool = True
    """Serve the routes. False: they answer 404."""
    transcriptions: Count = 2
    """Recordings that one host has transcribed at a time. Further requests are refused with 503 and Retry-After."""
    speeches: Count = 8
    """Texts that one host has spoken at a time. Further requests are refused with 503 and Retry-After."""
    chats: Count = 8
    """Chat completions that one host generates at a time. Further requests are refused with 503 and Retry-After."""
    per_key: Count = 16
    """Requests of one API key, of all three kinds, that one host serves at a time. Further ones are refused with 429.
    """
    retry_after_s: Positive = 2.0
    """Seconds after which a refused client should retry."""
    recording_bytes: int = Field(26_214_400, ge=65_536, le=268_435_456)
    """Maximum size of an uploaded recording, in bytes: 25 MB, as OpenAI's. A larger body is refused with 413."""
    recording_s: float = Field(1800, ge=1, le=14_400)
    """Maximum length of a recording, in seconds. Decoded audio takes 32 kB a second of memory."""
    json_bytes: int = Field(1_048_576, ge=4096, le=16_777_216)
    """Maximum size of the JSON body of the other two routes, in bytes."""
    input_characters: int = Field(4096, ge=1, le=100_000)
    """Maximum number of characters of a text to speak, as OpenAI's."""
    answer_tokens: int = Field(1024, ge=1, le=32_768)
    """Maximum number of tokens of a chat completion. A client's higher limit is lowered to it."""

    @property
    def most_requests(self) -> int:
        """Number of requests of all kinds that one host serves at a time."""
        return self.transcriptions + self.speeches + self.chats if self.enabled else 0
