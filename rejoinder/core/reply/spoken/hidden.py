"""Hidden text: the parts of a model's output that no caller hears or reads, removed while the text streams in.

The hidden parts are reasoning (`<think>`), tool syntax, special tokens of chat templates, and control characters. A
mark, such as `<think>`, may be split over any number of streamed pieces. Only text that could begin a mark is held
back, so text without marks passes at once. A block that is never closed hides everything that follows.

A closing mark without an opening mark is removed too. The text before it stays visible, because it has already been
passed on.
"""

from __future__ import annotations

import re
import unicodedata

BLOCKS = {
    **{f"<{name}>": f"</{name}>" for name in ("think", "thinking", "thought", "reasoning", "reflection", "scratchpad")},
    **{f"<{name}>": f"</{name}>" for name in ("tool_call", "tool_calls", "tool_response", "tool_use", "tools")},
    **{f"<{name}>": f"</{name}>" for name in ("function_call", "function_calls", "tool_code", "tool_output")},
    "<function=": "</function>",
    "<invoke ": "</invoke>",
    "[tool_calls]": "\n",
    "[think]": "[/think]",
    "<|channel|>analysis": "<|end|>",
    "<|channel|>commentary": "<|end|>",
    "<|python_tag|>": "<|eom_id|>",
    "<|tool_calls_begin|>": "<|tool_calls_end|>",
    "<|tool_call>": "<tool_call|>",
    "```tool_code": "```",
}
"""Opening marks of hidden blocks and their closing marks, in lower case."""

TOKENS = (
    *("<|start|>assistant", "<|channel|>final", "<start_of_turn>model", "<start_of_turn>", "<end_of_turn>"),
    *("</s>", "<s>", "[inst]", "[/inst]", "<bos>", "<eos>", "<unk>", "<pad>"),
    *sorted({closing for closing in BLOCKS.values() if closing[0] in "<["}),
)
"""Marks that are removed alone, in lower case."""

_MARKS = (*BLOCKS, *TOKENS)
_LONGEST = max(map(len, _MARKS))
_STARTS = "<[`{"
_SPECIAL = re.compile(r"<\|[^|<>\s]{0,40}\|>")
_SPECIAL_BEGUN = re.compile(r"<(?:\|[^|<>\s]{0,40}\|?)?")
_CALL = re.compile(
    r'\{\s*"(?:(?:name|function|tool|tool_name|tool_call|tool_calls|arguments|parameters)"\s*:|type"\s*:\s*"function")'
)
_CALL_BEGUN = re.compile(r'\{\s*(?:"(?:[a-z_]{0,10}(?:"\s*)?)?)?|\{\s*"type"\s*:\s*(?:"[a-z]{0,8})?')
_KEPT_CONTROLS = "\n\t"
_ZERO_WIDTH = "\u200d"
"""The joiner inside an emoji. Other characters without width are removed."""


class HiddenTextFilter:
    """Filter that removes hidden text from one streamed reply. Not thread-safe.

    Call `push` for each piece of text, then `flush` at the end.
    """

    def __init__(self) -> None:
        self._held = ""
        self._closing = ""
        self._depth: _JsonDepth | None = None
        self._line_blank = True

    def push(self, text: str) -> str:
        """Add the next piece of text, and return the visible text that is now known and was not returned before."""
        self._held += _without_controls(text)
        return self._take(final=False)

    def flush(self) -> str:
        """End the text, and return the visible text that was held back."""
        return self._take(final=True)

    def _take(self, *, final: bool) -> str:
        shown: list[str] = []
        while self._held:
            if self._depth:
                self._held = self._depth.skip(self._held)
                self._depth = None if self._depth.ended else self._depth
            elif self._closing:
                if not self._skip_to_closing():
                    break
            elif not self._step(shown, final=final):
                break
        return "".join(shown)

    def _skip_to_closing(self) -> bool:
        """Drop hidden text up to its closing mark; return False if the mark has not arrived."""
        at = self._held.lower().find(self._closing)
        if at < 0:
            self._held = self._held[-(len(self._closing) - 1) :] if len(self._closing) > 1 else ""
            return False
        self._held, self._closing = self._held[at + len(self._closing) :], ""
        return True

    def _step(self, shown: list[str], *, final: bool) -> bool:
        """Move the held-back text before the next possible mark to `shown`, and remove the mark.

        Args:
            shown: List of visible pieces, to which text is appended.
            final: True if no more text follows.

        Returns:
            False if more text is needed to decide, or if no text is left.
        """
        at = next((index for index, char in enumerate(self._held) if char in _STARTS), len(self._held))
        self._show(shown, at)
        if not self._held:
            return False
        start = self._held[:_LONGEST].lower()
        if not final and any(mark.startswith(start) and mark != start for mark in _MARKS):
            return False
        if mark := max((mark for mark in _MARKS if start.startswith(mark)), key=len, default=""):
            self._closing = BLOCKS.get(mark, "")
            self._held = self._held[len(mark) :]
        elif not final and any(mark.startswith(start) for mark in _MARKS):
            return False  # "<|channel|>" is a token by itself, but begins a block if "analysis" follows
        elif special := _SPECIAL.match(self._held):
            self._held = self._held[special.end() :]
        elif self._line_blank and _CALL.match(self._held):
            self._depth = _JsonDepth()
        elif not final and self._may_become_mark():
            return False
        else:
            self._show(shown, 1)
        return True

    def _may_become_mark(self) -> bool:
        """Return True if more text could make the held-back text a special token or a JSON tool call."""
        begun = _SPECIAL_BEGUN.fullmatch(self._held) or (self._line_blank and _CALL_BEGUN.fullmatch(self._held))
        return bool(begun)

    def _show(self, shown: list[str], length: int) -> None:
        text, self._held = self._held[:length], self._held[length:]
        shown.append(text)
        for char in text:
            self._line_blank = char == "\n" or (self._line_blank and char.isspace())


def visible_text(text: str) -> str:
    """Return a whole text without its hidden parts."""
    hidden = HiddenTextFilter()
    return hidden.push(text) + hidden.flush()


class _JsonDepth:
    """Position in a streamed JSON object: number of open brackets, and whether the position is inside a string."""

    def __init__(self) -> None:
        self._open = 0
        self._in_string = False
        self._escaped = False
        self.ended = False

    def skip(self, text: str) -> str:
        """Read the next piece of the object, and return the part of `text` after its end; "" before the end."""
        for index, char in enumerate(text):
            if self._in_string:
                self._in_string = char != '"' or self._escaped
                self._escaped = char == "\\" and not self._escaped
            elif char == '"':
                self._in_string = True
            elif char in "{[":
                self._open += 1
            elif char in "}]":
                self._open -= 1
                if self._open <= 0:
                    self.ended = True
                    return text[index + 1 :]
        return ""


def _without_controls(text: str) -> str:
    """Return the text without control characters (newline and tab stay), lone surrogates and zero-width characters."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        char
        for char in text
        if char in _KEPT_CONTROLS or char == _ZERO_WIDTH or unicodedata.category(char) not in {"Cc", "Cf", "Cs", "Co"}
    )
