"""Tests that every file, link and module that a text of the repository names exists, and no private document is named.

The texts are Markdown documents, docstrings and comments, and in the product also error messages and other strings.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CODE = ("rejoinder", "actors", "deployments", "cluster", "loadtest", "benchmarks", "scripts", "examples", "tests")
PRODUCT = CODE[:-1]
FOLDERS = "|".join((*CODE, "docs", r"\.github", r"\.ci"))
SKIPPED = {
    ".venv",
    ".venv-vllm",
    ".venv-clients",
    "node_modules",
    ".git",
    ".hypothesis",
    ".mypy_cache",
    ".ruff_cache",
    ".pytest_cache",
    "site",
    "out",
}

PATH = re.compile(rf"(?<![\w/.-])(?:{FOLDERS})/[\w./-]*\w")
LINK = re.compile(r"\]\(([^)\s]+)\)")
MODULE = re.compile(r"python -m ([\w.]+)")
# Names of private notes, which readers of the repository do not have. Texts must not cite them.
PRIVATE = re.compile(
    r"\bDESIGN\b|\bHOUSE\b|load-facts|ray-facts|\bmodels\.md|latency-guide\.md|openai-realtime\.md"
    r"|peers-and-techniques|\bthe issue\b|\bissue \d",
    re.IGNORECASE,
)
CASED = ("DESIGN", "HOUSE")
"""Names in PRIVATE that are also plain words. They count only in capital letters."""

ELSEWHERE = {"rejoinder/models"}
"""Paths that are not in the repository: the model store inside the user's cache folder."""


@dataclass(frozen=True)
class Passage:
    """A text of the repository and its place, for example `actors/session.py:12`."""

    where: str
    text: str


@cache
def documents() -> list[Path]:
    """Return every Markdown file of the repository."""
    found = (path for path in ROOT.rglob("*.md") if not SKIPPED & set(path.relative_to(ROOT).parts))
    return sorted(found)


def modules(folders: tuple[str, ...] = CODE) -> Iterator[Path]:
    """Yield every Python file in these folders except this one, which must contain the forbidden names."""
    for folder in folders:
        yield from (path for path in sorted((ROOT / folder).rglob("*.py")) if path != Path(__file__))


def passages(path: Path) -> Iterator[Passage]:
    """Yield the comments and docstrings of a Python file. For a file of the product, also yield all other strings."""
    source, name = path.read_text(encoding="utf-8"), str(path.relative_to(ROOT))
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield Passage(f"{name}:{token.start[0]}", token.string)
    tree, product = ast.parse(source), path.relative_to(ROOT).parts[0] in PRODUCT
    documentation = {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and (product or node in documentation):
            yield Passage(f"{name}:{node.lineno}", node.value)


def unknown_paths(passage: Passage) -> Iterator[str]:
    """Yield "FILE:LINE: PATH" for each file or folder that a passage names and that does not exist."""
    for found in PATH.findall(passage.text):
        known = found in ELSEWHERE or (ROOT / found).exists() or (ROOT / f"{found}.py").exists()
        if not known:
            yield f"{passage.where}: {found}"


def unknown_modules(passage: Passage) -> Iterator[str]:
    """Yield the place and name of each missing module of the repository that a passage runs with `python -m`."""
    for name in MODULE.findall(passage.text):
        placeholder = name.rpartition(".")[2].isupper()
        if name.split(".")[0] in CODE and not placeholder and find_spec(name.rstrip(".")) is None:
            yield f"{passage.where}: python -m {name}"


def private_names(passage: Passage) -> Iterator[str]:
    """Yield the place and name of each private document that a passage names."""
    for match in PRIVATE.finditer(passage.text):
        if match[0].upper() not in CASED or match[0] in CASED:
            yield f"{passage.where}: {match[0]}"


def offences(passage: Passage) -> Iterator[str]:
    """Yield the place and name of each missing file, missing module and private document that a passage names."""
    yield from unknown_paths(passage)
    yield from unknown_modules(passage)
    yield from private_names(passage)


@pytest.mark.parametrize("path", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_document_names_only_what_exists(path: Path) -> None:
    """Every file, module and relative link in a Markdown document exists, and it names no private document."""
    text = path.read_text(encoding="utf-8")
    found = list(offences(Passage(str(path.relative_to(ROOT)), text)))
    for target in LINK.findall(text):
        file, _, anchor = target.partition("#")
        if "://" in target or target.startswith("mailto:"):
            continue
        linked = (path.parent / file).resolve() if file else path
        if not linked.exists() or (anchor and anchor not in anchors(linked)):
            found.append(f"{path.name} links to {target}")
    assert not found, "\n".join(found)


def test_code_names_only_what_exists() -> None:
    """Every file and module that a docstring, comment or message names exists, and none names a private document."""
    found = [offence for path in modules() for passage in passages(path) for offence in offences(passage)]
    assert not found, "\n".join(found)


def anchors(path: Path) -> set[str]:
    """Return the anchors of a Markdown file's headings, to which `#anchor` links on GitHub and the site point."""
    heads = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head).strip().lower().replace(" ", "-") for head in heads}


@pytest.mark.parametrize(
    "text",
    [
        "see actors/nowhere.py for it",
        "`docs/none.md`",
        "python -m benchmarks.studies.nothing",
        "as DESIGN section 5 says",
        "reference facts (ray-facts 2)",
        "see issue 12",
    ],
)
def test_an_offence_is_found(text: str) -> None:
    """`offences` reports a file or module that does not exist, and a private document."""
    assert list(offences(Passage("here", text)))


@pytest.mark.parametrize(
    "text",
    [
        "actors/session.py and tests/system/",
        "python -m benchmarks.studies.calibrate_endpointing x",
        "the design of this house; open an issue",
        "https://github.com/someone/docs/none.md",
    ],
)
def test_what_is_allowed_is_not_found(text: str) -> None:
    """`offences` does not report existing files and modules, plain words, and addresses of other sites."""
    assert not list(offences(Passage("here", text)))
