"""Render conversations with a chat model's own Jinja template, without transformers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from rejoinder.core.errors import CallerError, ModelError
from rejoinder.core.reply.prompt_window import ChatMessage


class ChatTemplate:
    """Compiled chat template of one model, which turns messages into a prompt."""

    def __init__(self, source: str, special: Mapping[str, str], file: Path) -> None:
        """Compile the template.

        Args:
            source: Jinja source.
            special: The model's `bos_token` and `eos_token`.
            file: File that contains the template, for error messages.

        Raises:
            ModelError: `source` is not a Jinja template.
        """
        # transformers renders chat templates with these settings. Sandboxed, because a model's template can run code.
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        self._special = special
        try:
            self._template = environment.from_string(source)
        except TemplateError as error:
            message, remedy = "has a chat template that is not Jinja.", "Use another model."
            raise ModelError(message, remedy, file=str(file), found=str(error)) from error

    def render(self, messages: Sequence[ChatMessage], *, answer: str | None = "") -> str:
        """Return the prompt text.

        Control tokens inside a message are broken up, so that a caller cannot forge a turn.

        Args:
            messages: The conversation.
            answer: Start of the assistant's answer, which the prompt ends with. None leaves out the header that opens
                the assistant's turn.

        Raises:
            CallerError: The template refuses the messages.
        """
        entries = [{"role": m.role, "content": without_control_tokens(m.content)} for m in messages]
        try:
            opened = answer is not None
            prompt = self._template.render(messages=entries, add_generation_prompt=opened, **self._special)
        except TemplateError as error:
            message = f"the model's chat template refuses these messages: {error}."
            raise CallerError(message, "Alternate user and assistant messages.", code="invalid_messages") from error
        return prompt + without_control_tokens(answer or "")

    def render_open(self, messages: Sequence[ChatMessage]) -> str:
        """Return the prompt up to the end of the last message's text, so that words can be added to the message."""
        return up_to(self.render(messages, answer=None), without_control_tokens(messages[-1].content))


def without_control_tokens(text: str) -> str:
    """Return the text with `<|` broken up, so that no control token is left in it."""
    return text.replace("<|", "< |")


def up_to(prompt: str, message: str) -> str:
    """Return `prompt` cut after the last occurrence of `message`, or all of it if there is none."""
    words = message.strip()
    end = prompt.rfind(words)
    return prompt[: end + len(words)] if end >= 0 else prompt
