"""A chat model's own tokenizer and template, without transformers: messages to tokens, tokens to text."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

from rejoinder.core.errors import CallerError, ModelError
from rejoinder.core.reply.prompt_window import ChatMessage

_REMEDY = "Run `rejoinder models pull`, which also converts the model."
# Also ends a turn where a model's template closes it with another token than its eos_token.
_END_OF_TEXT = "<|endoftext|>"


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
            raise ModelError("is not a Jinja template.", _REMEDY, file=str(file), found=str(error)) from error

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


class ChatTokenizer:
    """tokenizer.json, tokenizer_config.json and chat_template.jinja of one model folder."""

    def __init__(self, directory: Path) -> None:
        """Raises ModelError if one of the three files is missing or unreadable."""
        config = json.loads(_read(directory / "tokenizer_config.json"))
        special = {key: config.get(key) or "" for key in ("bos_token", "eos_token")}
        self._tokenizer = Tokenizer.from_str(_read(directory / "tokenizer.json"))
        file = directory / "chat_template.jinja"
        self._template = ChatTemplate(_read(file), special, file)
        vocabulary: dict[str, int] = self._tokenizer.get_vocab()
        self._ends = {end: vocabulary[end] for end in (special["eos_token"], _END_OF_TEXT) if end in vocabulary}

    @property
    def end_tokens(self) -> list[str]:
        """The tokens that end an answer."""
        return list(self._ends)

    def render(self, messages: Sequence[ChatMessage], *, answer: str | None = "") -> str:
        """As ChatTemplate.render."""
        return self._template.render(messages, answer=answer)

    def encode(self, messages: Sequence[ChatMessage], *, answer: str | None = "") -> list[str]:
        """The tokens of `render`."""
        return [self.token(token_id) for token_id in self.token_ids(self.render(messages, answer=answer))]

    def token_ids(self, text: str) -> list[int]:
        """The ids of a rendered prompt; control marks in it are control tokens."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def token(self, token_id: int) -> str:
        """The vocabulary entry of an id, as CTranslate2 takes it."""
        return self._tokenizer.id_to_token(token_id) or ""

    def new_decoder(self) -> TokenDecoder:
        return TokenDecoder(self._tokenizer, frozenset(self._ends.values()))


class TokenDecoder:
    """Incremental detokenisation of one answer; holds back the bytes of an unfinished character."""

    def __init__(self, tokenizer: Tokenizer, end_ids: frozenset[int]) -> None:
        self._tokenizer = tokenizer
        self._end_ids = end_ids
        self._stream = DecodeStream(skip_special_tokens=True)

    def text_of(self, token_id: int) -> str:
        return self._stream.step(self._tokenizer, token_id) or ""

    def ends(self, token_id: int) -> bool:
        return token_id in self._end_ids


def plain(text: str) -> str:
    """A message's text with control marks broken up."""
    return text.replace("<|", "< |")


def up_to(prompt: str, message: str) -> str:
    """A prompt as far as the last word of its last message, which may go on."""
    words = message.strip()
    end = prompt.rfind(words)
    return prompt[: end + len(words)] if end >= 0 else prompt


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError("cannot be read.", _REMEDY, file=str(file), found=str(error)) from error
