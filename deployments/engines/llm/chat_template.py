"""Render conversations with a chat model's own Jinja template, without transformers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from rejoinder.core.errors import CallerError, ModelError
from rejoinder.core.reply.prompt_window import ChatMessage, Role
from rejoinder.core.reply.tools.calls import FunctionTool
from rejoinder.core.reply.tools.written import OPENING, call_text, instructions_for, result_text

# Minimum length in characters of a control token that is broken up in messages. Shorter ones occur in ordinary text.
_SHORTEST_TOKEN = 3
# Beginning of a message with the results of tool calls.
_RESULT = result_text("").split("\n")[0]


class _GenerationTag(Extension):
    """Jinja extension for the tag `generation`, with which templates mark the assistant's text for training."""

    tags = {"generation"}  # noqa: RUF012 (the base class declares it so)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """Return the statements inside the tag, without the tag."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _refuse(message: str) -> NoReturn:
    """Raise TemplateError: the function `raise_exception` of chat templates."""
    raise TemplateError(message)


def _today(form: str) -> str:
    """Return the current time in the given strftime format: the function `strftime_now` of chat templates."""
    return datetime.now().astimezone().strftime(form)


def _to_json(value: object, indent: int | None = None) -> str:
    """Return `value` as JSON without the HTML escapes of Jinja's own filter."""
    return json.dumps(value, ensure_ascii=False, indent=indent)


class ChatTemplate:
    """Compiled chat template of one model, which turns messages into a prompt."""

    def __init__(
        self,
        source: str,
        special: Mapping[str, str],
        file: Path,
        *,
        control_tokens: Iterable[str] = (),
        adds_bos: bool = False,
    ) -> None:
        """Compile the template.

        Args:
            source: Jinja source.
            special: The model's `bos_token` and `eos_token`.
            file: File that contains the template, for error messages.
            control_tokens: The model's control tokens, which messages must not contain.
            adds_bos: True if the engine puts the beginning-of-sequence token before each prompt; `render` omits it.

        Raises:
            ModelError: `source` is not a Jinja template.
        """
        # transformers renders chat templates with these settings. Sandboxed, because a model's template can run code.
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", _GenerationTag]
        )
        environment.filters["tojson"] = _to_json
        environment.globals |= {"raise_exception": _refuse, "strftime_now": _today}
        self._special = special
        self._leading = special.get("bos_token", "") if adds_bos else ""
        self._describes_tools = OPENING in source and "<function=" not in source
        names = sorted((token for token in control_tokens if len(token) >= _SHORTEST_TOKEN), key=len, reverse=True)
        self._control = re.compile("|".join(map(re.escape, names))) if names else None
        try:
            self._template = environment.from_string(source)
        except TemplateError as error:
            message, remedy = "has a chat template that is not Jinja.", "Use another model."
            raise ModelError(message, remedy, file=str(file), found=str(error)) from error

    def render(
        self, messages: Sequence[ChatMessage], *, answer: str | None = "", tools: tuple[FunctionTool, ...] = ()
    ) -> str:
        """Return the prompt text.

        Control tokens inside a message are broken up, so that a caller cannot forge a turn. If the template refuses the
        messages, they are rendered again in the form that every template accepts (see `alternating`).

        Args:
            messages: The conversation.
            answer: Start of the assistant's answer, which the prompt ends with. None leaves out the header that opens
                the assistant's turn.
            tools: The tools that the model may call. A template that does not describe tools in the form of Hermes and
                Qwen2.5 gets this description as a part of the system message.

        Raises:
            CallerError: The template refuses the messages in both forms.
        """
        if not self._describes_tools:
            messages, tools = with_tools_as_text(messages, tools), ()
        try:
            prompt = self._rendered(messages, tools, opened=answer is not None)
        except TemplateError:
            try:
                plain = alternating(with_tools_as_text(messages, tools))
                prompt = self._rendered(plain, (), opened=answer is not None)
            except TemplateError as error:
                message = f"the model's chat template refuses these messages: {error}."
                raise CallerError(message, "Alternate user and assistant messages.", code="invalid_messages") from error
        return prompt + self._harmless(answer or "")

    def _rendered(self, messages: Sequence[ChatMessage], tools: tuple[FunctionTool, ...], *, opened: bool) -> str:
        entries = [self._entry(message) for message in messages]
        # `enable_thinking=False` stops models from thinking before they answer, because the caller would wait. Other
        # models' templates ignore the variable.
        prompt: str = self._template.render(
            messages=entries,
            tools=[tool.chat_form() for tool in tools] or None,
            add_generation_prompt=opened,
            enable_thinking=False,
            **self._special,
        )
        return prompt.removeprefix(self._leading)

    def _entry(self, message: ChatMessage) -> dict[str, Any]:
        """Return a message as templates expect it, with the arguments of calls as dicts."""
        entry: dict[str, Any] = {"role": message.role, "content": self._harmless(message.content)}
        if message.calls:
            entry["tool_calls"] = [
                {"type": "function", "function": {"name": call.name, "arguments": call.values}}
                for call in message.calls
            ]
        return entry

    def _harmless(self, text: str) -> str:
        """Return the text with every control token broken up by a space after its first character."""
        plain = without_control_tokens(text)
        return self._control.sub(lambda token: f"{token[0][0]} {token[0][1:]}", plain) if self._control else plain

    def render_open(self, messages: Sequence[ChatMessage], *, tools: tuple[FunctionTool, ...] = ()) -> str:
        """Return the prompt up to the end of the last message's text, so that words can be added to the message.

        If the last message is a system message, the prompt includes its end and the description of `tools`, because
        nothing is added to instructions.
        """
        prompt = self.render(messages, answer=None, tools=tools)
        if tools and messages[-1].role == "system":
            return prompt
        return up_to(prompt, self._harmless(messages[-1].content))


def with_tools_as_text(messages: Sequence[ChatMessage], tools: tuple[FunctionTool, ...]) -> list[ChatMessage]:
    """Return messages that need no support of tools in the chat template.

    The description of the tools is added to the system message. Calls become the text with which the model would make
    them, and results become messages of the user.
    """
    found: list[ChatMessage] = []
    for message in messages:
        if message.role == "tool":
            result = result_text(message.content)
            if found and found[-1].role == "user" and found[-1].content.startswith(_RESULT):
                found[-1] = ChatMessage("user", f"{found[-1].content}\n{result}")
            else:
                found.append(ChatMessage("user", result))
        elif message.calls:
            texts = [message.content, *(call_text(call) for call in message.calls)]
            found.append(ChatMessage("assistant", "\n".join(text for text in texts if text)))
        else:
            found.append(message)
    if not tools:
        return found
    described = instructions_for(tools)
    if found and found[0].role == "system":
        return [ChatMessage("system", f"{found[0].content}\n\n{described}"), *found[1:]]
    return [ChatMessage("system", described), *found]


def alternating(messages: Sequence[ChatMessage]) -> list[ChatMessage]:
    """Return the messages in the form that templates without a system role, such as Gemma's, accept.

    The system message becomes the beginning of the first user message, and neighbours of the same role become one
    message. Before a conversation that the assistant begins, there is an empty user message.
    """
    turns: list[ChatMessage] = []
    for message in messages:
        role: Role = "user" if message.role == "system" else message.role
        if turns and turns[-1].role == role:
            turns[-1] = ChatMessage(role, f"{turns[-1].content}\n\n{message.content}")
        else:
            turns.append(ChatMessage(role, message.content))
    return turns if not turns or turns[0].role == "user" else [ChatMessage("user", ""), *turns]


def without_control_tokens(text: str) -> str:
    """Return the text with `<|` broken up, so that no control token is left in it."""
    return text.replace("<|", "< |")


def up_to(prompt: str, message: str) -> str:
    """Return `prompt` cut after the last occurrence of `message`, or all of it if there is none."""
    words = message.strip()
    end = prompt.rfind(words)
    return prompt[: end + len(words)] if end >= 0 else prompt
