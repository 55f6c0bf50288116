"""The session object: a client's configuration, merged field by field, and its JSON form.

Any names of a model, voice and transcription model are accepted and repeated to the client, because clients made for
OpenAI send OpenAI's names. The names do not change which engines serve the session. A `null` clears turn_detection,
transcription or noise_reduction. An absent field changes nothing.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import Any

from rejoinder.core.errors import CallerError
from rejoinder.core.reply.tools.calls import NO_TOOLS, FunctionTool, ToolMode, ToolOffer
from rejoinder.core.turns.endpointing import MAX_WAIT_S, DetectionMode, TurnDetection
from rejoinder.core.wire.fields import Fields, Json, refuse
from rejoinder.core.wire.formats import AudioFormat, parse_format

MAX_TOOLS = 128
SERVER_TOOLS = ("mcp",)
"""Types of tools that the server calls. All other tools are functions of the client."""
MAX_OUTPUT_TOKENS = 4096
MAX_KEYWORDS = 1000
# Maximum sizes of settings that are only kept and sent back, in characters of their JSON text. Every session.updated
# contains all of them, so a small update would otherwise cause an answer of any size.
MAX_TOOLS_JSON = 131_072
MAX_TRACING_JSON = 8192
MAX_TRANSCRIPTION_JSON = 16_384

_AUTOMATIC = (DetectionMode.SERVER_VAD, DetectionMode.SEMANTIC_VAD)

REALTIME, TRANSCRIPTION = "realtime", "transcription"
"""The two types of a session: a conversation, or a transcription of the caller without any reply."""
WORDS, SEGMENTS = "item.input_audio_transcription.words", "item.input_audio_transcription.segments"
"""Entries of `include` that ask for the times of words, and for segment events. OpenAI's API has neither."""
_MODELS_WITHOUT_TURNS = ("gpt-realtime-whisper", "gpt-live-transcribe")
NO_LIMIT = "inf"
"""Value of max_output_tokens with which a client asks for answers of any length (MAX_OUTPUT_TOKENS)."""


@dataclass(frozen=True, slots=True)
class SessionConfig:
    """Effective configuration of one session, with OpenAI's field names.

    Attributes:
        output_modality: "audio" or "text".
        max_output_tokens: Maximum number of tokens of one response; NO_LIMIT for MAX_OUTPUT_TOKENS, None if the client
            has not said: then the operator's limit applies.
        transcription: The client's options for transcripts of the caller. They change nothing and are only sent back.
            None: the client gets no transcription events, unless `type` is TRANSCRIPTION.
        noise_reduction: The client's options for noise reduction. They change nothing and are only sent back.
        parallel_tool_calls: True if one response may call several tools.
        speed: Speaking rate, 0.25 to 1.5.
        type: REALTIME or TRANSCRIPTION.
        mcp: The tools of type mcp that are permitted, as `mcp_tools.McpRequest.wire` returns them.
        drops_replies: True if the client is known to drop a reply for good at input_audio_buffer.speech_started.
        traceparent: W3C trace context that the client sent when it connected; "" for none.
        include: What the client wants with each transcript: WORDS, SEGMENTS or both. Only if `type` is TRANSCRIPTION.
    """

    model: str = "rejoinder"
    output_modality: str = "audio"
    instructions: str = ""
    tools: tuple[Json, ...] = ()
    tool_choice: Any = "auto"
    parallel_tool_calls: bool = True
    max_output_tokens: int | str | None = None
    input_format: AudioFormat = AudioFormat.PCM
    output_format: AudioFormat = AudioFormat.PCM
    detection: TurnDetection = field(default_factory=TurnDetection)
    transcription: Json | None = None
    noise_reduction: Json | None = None
    voice: str = "default"
    speed: float = 1.0
    truncation: Any = "auto"
    tracing: Any = None
    type: str = REALTIME
    mcp: tuple[Json, ...] = ()
    drops_replies: bool = False
    traceparent: str = ""
    include: tuple[str, ...] = ()

    @property
    def transcribes_only(self) -> bool:
        """True if the session transcribes the caller and never replies."""
        return self.type == TRANSCRIPTION

    @property
    def sends_transcripts(self) -> bool:
        """True if the client gets the transcripts of the caller's turns."""
        return self.transcribes_only or self.transcription is not None

    def token_limit(self, default: int) -> int:
        """Return the maximum number of tokens of one response; `default` if the client has not set it."""
        if self.max_output_tokens == NO_LIMIT:
            return MAX_OUTPUT_TOKENS
        return default if self.max_output_tokens is None else int(self.max_output_tokens)

    def offer(self, call_tokens: int, of_servers: tuple[FunctionTool, ...] = ()) -> ToolOffer:
        """Return the tools for the language model.

        A tool of a server whose name a client's tool has is left out.

        Args:
            call_tokens: Number of tokens that the calls of one answer may take, besides `max_output_tokens`. It does
                not apply if the client has set this limit, because its limit includes calls.
            of_servers: Tools that this system calls.
        """
        named = self.tool_choice["name"] if isinstance(self.tool_choice, dict) else ""
        tools = (*(_function_tool(tool) for tool in self.tools), *of_servers)
        if named and all(tool.name != named for tool in tools):  # the named tool has been removed since
            named = ""
            mode: ToolMode = "auto"
        else:
            mode = "required" if named else self.tool_choice
        extra = call_tokens if self.max_output_tokens is None else 0
        return (
            ToolOffer(tools, mode, named, parallel=self.parallel_tool_calls, call_tokens=extra) if tools else NO_TOOLS
        )


def merge(
    config: SessionConfig, patch: Fields, *, voice_locked: bool = False, type_locked: bool = False
) -> SessionConfig:
    """Return the configuration after a session.update.

    Args:
        config: The configuration before.
        patch: The fields that the client sent.
        voice_locked: True to refuse another voice, because audio has already been sent.
        type_locked: True to refuse another type of session, because the conversation has begun.

    Raises:
        CallerError: A field is invalid. The old configuration stays in effect.
    """
    kind = patch.choice("type", (REALTIME, TRANSCRIPTION))
    if kind != config.type and type_locked:
        raise refuse(
            "The type of a session cannot change after its first item.", patch.at("type"), remedy="Open a new session."
        )
    config = replace(config, type=kind)
    audio = patch.child("audio")
    own_turns = ends_turns_itself(config)
    config = _merge_audio_input(config, audio.child("input"))
    if kind == TRANSCRIPTION:
        if "turn_detection" not in audio.child("input") and ends_turns_itself(config) and not own_turns:
            config = replace(config, detection=TurnDetection(mode=DetectionMode.NONE))
        wanted = patch.texts("include", 16)
        known = tuple(name for name in (WORDS, SEGMENTS) if name in wanted)
        return replace(config, include=known) if "include" in patch else config
    config = replace(config, include=())
    return _merge_replies(config, patch, audio.child("output"), voice_locked)


def ends_turns_itself(config: SessionConfig) -> bool:
    """Return True if the client's transcription model is one without turn detection at OpenAI.

    Its clients end each turn by input_audio_buffer.commit, and take the error of a commit after ours as fatal.
    """
    return str((config.transcription or {}).get("model", "")).startswith(_MODELS_WITHOUT_TURNS)


def _merge_replies(config: SessionConfig, patch: Fields, output: Fields, voice_locked: bool) -> SessionConfig:
    """Return the configuration after the fields of a session.update that concern replies.

    `output` is the object `audio.output` of the update.
    """
    config = _merge_audio_output(config, output, voice_locked)
    if patch.raw("model") is not None:
        config = replace(config, model=patch.text("model", limit=128))
    if "output_modalities" in patch:
        config = replace(config, output_modality=modality(patch))
    if "instructions" in patch:
        config = replace(config, instructions=patch.optional_text("instructions") or "")
    if "max_output_tokens" in patch:
        config = replace(config, max_output_tokens=max_tokens(patch))
    config = merge_tools(config, patch)
    if "truncation" in patch:
        config = replace(config, truncation=_truncation(patch))
    if "tracing" in patch:
        config = replace(config, tracing=_tracing(patch))
    return config


def merge_tools(config: SessionConfig, patch: Fields) -> SessionConfig:
    """Return the configuration after the fields of a session.update or a response.create that concern tools.

    Raises:
        CallerError: A field is invalid, or `tool_choice` names a tool that is not declared.
    """
    if "tools" in patch:
        tools = tuple(_tool(tool) for tool in patch.items("tools", MAX_TOOLS) if not _of_server(tool))
        _check_size(tools, patch.at("tools"), MAX_TOOLS_JSON)
        config = replace(config, tools=tools)
    if "parallel_tool_calls" in patch:
        config = replace(config, parallel_tool_calls=patch.flag("parallel_tool_calls", True))
    if "tool_choice" in patch:
        config = replace(config, tool_choice=_tool_choice(patch, {tool["name"] for tool in config.tools}))
    return config


def refused_tools(patch: Fields) -> list[CallerError]:
    """Return an error for each tool in `tools` of a response.create whose type only a session.update may have."""
    if "tools" not in patch:
        return []
    return [
        refuse(
            f"Tools of type {str(tool.raw('type'))[:80]!r} are not supported. This tool is left out.",
            tool.at("type"),
            code="unsupported_tool",
            remedy="Request MCP servers in a session.update.",
        )
        for tool in patch.items("tools", MAX_TOOLS)
        if _of_server(tool)
    ]


def modality(fields: Fields) -> str:
    """Return "audio" or "text", the only entry of the list `output_modalities`. Any other value raises CallerError."""
    value = fields.raw("output_modalities")
    if value not in (["audio"], ["text"]):
        path = fields.at("output_modalities")
        raise refuse(f"{path} is {str(value)[:80]}.", path, remedy='Use ["audio"] or ["text"].')
    return str(value[0])


def max_tokens(fields: Fields) -> int | str | None:
    """Return max_output_tokens: a number from 1 to 4096, NO_LIMIT for "inf", or None if it is absent or null.

    Raises:
        CallerError: It has any other value.
    """
    if fields.raw("max_output_tokens") in (None, NO_LIMIT):
        return NO_LIMIT if fields.raw("max_output_tokens") else None
    return fields.whole("max_output_tokens", 1, MAX_OUTPUT_TOKENS)


def echo(config: SessionConfig, session_id: str, expires_at: int) -> Json:
    """Return the session object as JSON, as session.created and session.updated contain it.

    Booleans with default values are included, because OpenAI's agents SDKs read them.

    Args:
        config: The configuration.
        session_id: Id of the session.
        expires_at: Unix time in seconds at which the session ends.
    """
    audio_input: Json = {
        "format": config.input_format.wire(),
        "transcription": config.transcription,
        "noise_reduction": config.noise_reduction,
        "turn_detection": _echo_detection(config.detection, replies=not config.transcribes_only),
    }
    if config.transcribes_only:
        return {
            "type": TRANSCRIPTION,
            "object": "realtime.transcription_session",
            "id": session_id,
            "expires_at": expires_at,
            "audio": {"input": audio_input},
        }
    return {
        "type": REALTIME,
        "object": "realtime.session",
        "id": session_id,
        "model": config.model,
        "output_modalities": [config.output_modality],
        "instructions": config.instructions,
        "tools": [*config.tools, *config.mcp],
        "tool_choice": config.tool_choice,
        "parallel_tool_calls": config.parallel_tool_calls,
        "max_output_tokens": NO_LIMIT if config.max_output_tokens is None else config.max_output_tokens,
        "truncation": config.truncation,
        "tracing": config.tracing,
        "expires_at": expires_at,
        "audio": {
            "input": audio_input,
            "output": {"format": config.output_format.wire(), "voice": config.voice, "speed": config.speed},
        },
    }


def _merge_audio_input(config: SessionConfig, patch: Fields) -> SessionConfig:
    config = replace(config, input_format=parse_format(patch, config.input_format))
    if "turn_detection" in patch:
        config = replace(config, detection=_detection(config.detection, patch))
    if "transcription" in patch:
        config = replace(config, transcription=_transcription(config.transcription, patch))
    if "noise_reduction" in patch:
        config = replace(config, noise_reduction=_noise_reduction(patch))
    return config


def _transcription(current: Json | None, patch: Fields) -> Json | None:
    """Return the transcription options after a session.update; None if the client cleared them.

    They contain only keys that the client has sent, because some clients fail on unknown keys.
    """
    if patch.raw("transcription") is None:
        return None
    fields = patch.child("transcription")
    sent: Json = {name: fields.text(name) for name in ("model", "language", "prompt") if fields.raw(name) is not None}
    sent |= {name: fields.texts(name, MAX_KEYWORDS) for name in ("keywords", "languages") if fields.raw(name)}
    if fields.raw("delay") is not None:
        sent["delay"] = fields.choice("delay", ("minimal", "low", "medium", "high", "xhigh"))
    options = (current or {}) | sent
    _check_size(options, fields.path, MAX_TRANSCRIPTION_JSON)
    return options


def _check_size(value: Any, path: str, limit: int) -> None:
    """Raise CallerError if a value at `path` has more than `limit` characters as JSON."""
    if (size := len(json.dumps(value))) > limit:
        raise refuse(f"{path} has {size} characters as JSON.", path, remedy=f"Send at most {limit}.")


def _noise_reduction(patch: Fields) -> Json | None:
    if patch.raw("noise_reduction") is None:
        return None
    return {"type": patch.child("noise_reduction").choice("type", ("near_field", "far_field"))}


def _merge_audio_output(config: SessionConfig, patch: Fields, voice_locked: bool) -> SessionConfig:
    config = replace(config, output_format=parse_format(patch, config.output_format))
    if "speed" in patch:
        config = replace(config, speed=patch.number("speed", 0.25, 1.5, 1.0))
    return replace(config, voice=voice_of(patch, config.voice, locked=voice_locked))


def voice_of(output: Fields, current: str, *, locked: bool) -> str:
    """Return the name of the voice in an object `audio.output`; `current` if it has none.

    Raises:
        CallerError: The name is invalid, or it differs from `current` and the voice is `locked`.
    """
    voice = output.raw("voice")
    if voice is None:
        return current
    name = output.child("voice").text("id", limit=128) if isinstance(voice, dict) else output.text("voice", limit=128)
    if locked and name != current:
        raise refuse(
            "The voice cannot change after the first audio.",
            output.at("voice"),
            remedy="Keep the voice, or open a new session.",
        )
    return name


def _detection(current: TurnDetection, patch: Fields) -> TurnDetection:
    if patch.raw("turn_detection") is None:
        return TurnDetection(mode=DetectionMode.NONE)
    fields = patch.child("turn_detection")
    default = DetectionMode.SERVER_VAD if current.mode is DetectionMode.NONE else current.mode
    mode = DetectionMode(fields.choice("type", [mode.value for mode in _AUTOMATIC], default.value))
    base = current if current.mode is mode else TurnDetection(mode=mode)
    base = replace(
        base,
        create_response=fields.flag("create_response", base.create_response),
        interrupt_response=fields.flag("interrupt_response", base.interrupt_response),
    )
    if mode is DetectionMode.SEMANTIC_VAD:
        eagerness = fields.choice("eagerness", list(MAX_WAIT_S), base.eagerness)
        return replace(base, eagerness=eagerness)
    idle_ms = base.idle_timeout_ms
    if "idle_timeout_ms" in fields:
        idle_ms = None if fields.raw("idle_timeout_ms") is None else fields.whole("idle_timeout_ms", 1000, 600_000)
    return replace(
        base,
        threshold=fields.number("threshold", 0, 1, base.threshold),
        prefix_padding_ms=fields.whole("prefix_padding_ms", 0, 5000, round(base.prefix_padding_ms)),
        silence_duration_ms=fields.whole("silence_duration_ms", 0, 20000, round(base.silence_duration_ms)),
        idle_timeout_ms=idle_ms,
    )


def _echo_detection(detection: TurnDetection, *, replies: bool) -> Json | None:
    """Return turn_detection as JSON. `replies` is False for a session without replies: then it has no flags of them."""
    if detection.mode is DetectionMode.NONE:
        return None
    shared: Json = {"type": detection.mode.value}
    if replies:
        shared |= {
            "create_response": detection.create_response,
            "interrupt_response": detection.interrupt_response,
        }
    if detection.mode is DetectionMode.SEMANTIC_VAD:
        return shared | {"eagerness": detection.eagerness}
    return shared | {
        "threshold": detection.threshold,
        "prefix_padding_ms": round(detection.prefix_padding_ms),
        "silence_duration_ms": round(detection.silence_duration_ms),
        **({"idle_timeout_ms": detection.idle_timeout_ms} if replies else {}),
    }


def _tool(tool: Fields) -> Json:
    """Return the validated JSON of a tool that the model may call.

    The result keeps the fields that OpenAI defines (`type`, `name`, `description`, `parameters`) and no others.
    """
    kind = tool.choice("type", ("function",))
    found: Json = {"type": kind, "name": tool.text("name", limit=128)}
    if tool.raw("description") is not None:
        found["description"] = tool.text("description")
    if tool.raw("parameters") is not None:
        found["parameters"] = tool.child("parameters").as_dict()
    return found


def _of_server(tool: Fields) -> bool:
    """Return True for a tool that the server calls. `mcp_tools` reads it."""
    return tool.raw("type") in SERVER_TOOLS


def _function_tool(tool: Json) -> FunctionTool:
    parameters = json.dumps(tool["parameters"], ensure_ascii=False) if tool.get("parameters") else ""
    return FunctionTool(tool["name"], tool.get("description", ""), parameters)


def _tool_choice(patch: Fields, declared: set[str]) -> str | Json:
    """Return the field `tool_choice`. `declared` has the names of the tools that it may name."""
    if isinstance(patch.raw("tool_choice"), dict):
        choice = patch.child("tool_choice")
        found = {"type": choice.choice("type", ("function",)), "name": choice.text("name", limit=128)}
        if found["name"] not in declared:
            options = ", ".join(sorted(declared)) or "declare a tool first"
            path = choice.at("name")
            raise refuse(
                f"{path} {found['name'][:80]!r} is not a declared tool.", path, remedy=f"Use one of: {options}."
            )
        return found
    return patch.choice("tool_choice", ("auto", "none", "required"), "auto")


def _truncation(patch: Fields) -> str | Json:
    if not isinstance(patch.raw("truncation"), dict):
        return patch.choice("truncation", ("auto", "disabled"), "auto")
    fields = patch.child("truncation")
    kind = fields.choice("type", ("retention_ratio",))
    truncation: Json = {"type": kind, "retention_ratio": fields.number("retention_ratio", 0, 1)}
    if fields.raw("token_limits") is not None:
        limits = fields.child("token_limits")
        truncation["token_limits"] = {"post_instructions": limits.whole("post_instructions", 0, 2**31)}
    return truncation


def _tracing(patch: Fields) -> str | Json | None:
    if patch.raw("tracing") is None:
        return None
    if not isinstance(patch.raw("tracing"), dict):
        return patch.choice("tracing", ("auto",))
    fields = patch.child("tracing")
    tracing: Json = {name: fields.text(name) for name in ("workflow_name", "group_id") if fields.raw(name) is not None}
    if fields.raw("metadata") is not None:
        tracing["metadata"] = fields.child("metadata").as_dict()
    _check_size(tracing, fields.path, MAX_TRACING_JSON)
    return tracing
