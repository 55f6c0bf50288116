"""Formulas in LaTeX: the words for commands, fractions, roots, powers and indices."""

from __future__ import annotations

import re

from rejoinder.core.reply.spoken.rules.quantities import formula_words
from rejoinder.core.reply.spoken.rules.view import View

_COMMANDS = {
    "times": "×",
    "cdot": "×",
    "div": "÷",
    "pm": "±",
    "leq": "≤",
    "le": "≤",
    "geq": "≥",
    "ge": "≥",
    "neq": "≠",
    "ne": "≠",
    "approx": "≈",
    "to": "→",
    "rightarrow": "→",
    "infty": "∞",
    "lt": "<",
    "gt": ">",
    "equiv": "=",
}
_SILENT = frozenset(
    [
        "left",
        "right",
        "quad",
        "qquad",
        "displaystyle",
        "mathrm",
        "mathbf",
        "text",
        "mathit",
        "operatorname",
        "boxed",
        "limits",
        ",",
        ";",
        "!",
    ]
)
_NAMED = {
    "sum": "the sum of",
    "int": "the integral of",
    "lim": "the limit of",
    "prod": "the product of",
    "ldots": "and so on",
}


def latex_words(view: View, text: str) -> str:
    """Return the spoken words of a formula in LaTeX, in the language of `view`."""
    over, root = view.say("over"), view.say("√")
    for _ in range(4):  # one pass per level of nested fractions and roots, innermost first; deeper levels are rare
        text = re.sub(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}", rf" \1 ⟦{over}⟧ \2 ", text)
        text = re.sub(r"\\sqrt\s*\{([^{}]*)\}", rf" ⟦{root}⟧ \1 ", text)
        text = re.sub(r"\\(?:text|mathrm|mathbf|mathit|operatorname|boxed)\s*\{([^{}]*)\}", r" \1 ", text)
        text = re.sub(r"\^\{([^{}]*)\}", r"^\1", text)
        text = re.sub(r"_\{([^{}]*)\}", r" \1", text)
    text = re.sub(r"\\([A-Za-z]+|[,;!])", _command, text)
    text = re.sub(r"[{}\\]", " ", text).replace("_", " ")
    words = [
        part[1:-1] if part.startswith("⟦") else formula_words(view, part) for part in re.findall(r"⟦[^⟧]*⟧|[^⟦]+", text)
    ]
    return " ".join(" ".join(words).split())


def _command(match: re.Match[str]) -> str:
    name = match[1]
    if name in _SILENT:
        return " "
    return f" {_COMMANDS.get(name) or (f'⟦{_NAMED[name]}⟧' if name in _NAMED else f'⟦{name}⟧')} "
