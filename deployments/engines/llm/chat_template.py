"""A chat model's own tokenizer and template, without transformers: messages to tokens, tokens to text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from rejoinder.core.errors import CallerError, ModelError
from rejoinder.core.reply.prompt_window import ChatMessage


class ChatTemplate:
    """A model's own way of writing a conversation. `special`: its bos_token and eos_token; `file` is for errors."""

    def __init__(self, source: str, special: Mapping[str, str], file: Path) -> None:
        """Raises ModelError if it is no template."""
        # The settings under which transformers renders chat templates; sandboxed, because a template is code.
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        self._special = special
        try:
            self._template = environment.from_string(source)
        except TemplateError as error:
            message, remedy = "has a chat template that is not Jinja.", "Use another model."
            raise ModelError(message, remedy, file=str(file), found=str(error)) from error

    def render(self, messages: Sequence[ChatMessage], *, answer: str | None = "") -> str:
        """The prompt text, up to the `answer` begun so far; None leaves the assistant's turn unopened.

        Control marks inside a message are broken up, so that no caller can forge a turn. Raises CallerError if the
        template refuses the messages.
        """
        entries = [{"role": m.role, "content": plain(m.content)} for m in messages]
        try:
            opened = answer is not None
            prompt = self._template.render(messages=entries, add_generation_prompt=opened, **self._special)
        except TemplateError as error:
            message = f"the model's chat template refuses these messages: {error}."
            raise CallerError(message, "Alternate user and assistant messages.", code="invalid_messages") from error
        return prompt + plain(answer or "")

    def render_open(self, messages: Sequence[ChatMessage]) -> str:
        """The prompt text up to the last word of the last message, which may go on."""
        return up_to(self.render(messages, answer=None), plain(messages[-1].content))


def plain(text: str) -> str:
    """A message's text with control marks broken up."""
    return text.replace("<|", "< |")


def up_to(prompt: str, message: str) -> str:
    """A prompt as far as the last word of its last message, which may go on."""
    words = message.strip()
    end = prompt.rfind(words)
    return prompt[: end + len(words)] if end >= 0 else prompt
