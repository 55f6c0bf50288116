"""Tests of the structure of the code: which modules may import which, what the core may use, and maximum sizes.

Every rule is a function that yields a message for each violation in a parsed module or in a list of modules. The
repository must have no violation. Each rule is also tested with a module that violates it.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# LAYERS lists the packages that each package may import besides itself; STAGES and PRODUCT abbreviate common lists. A
# module belongs to the innermost package in LAYERS. A package that is not listed, such as `tests`, may import all.
STAGES = ("rejoinder.core", "rejoinder.store", "actors.stages")
PRODUCT = ("rejoinder.core", "rejoinder.store", "actors", "deployments", "cluster", "loadtest")
LAYERS: dict[str, tuple[str, ...]] = {
    "rejoinder.core": (),
    "rejoinder.core.audio": (),
    "rejoinder.core.measuring": ("rejoinder.core.audio",),
    "rejoinder.core.capacity": ("rejoinder.core.measuring",),
    "rejoinder.core.settings": ("rejoinder.core.errors", "rejoinder.core.capacity", "rejoinder.core.measuring"),
    "rejoinder.core.resilience": ("rejoinder.core.settings",),
    "rejoinder.core.access": ("rejoinder.core.errors", "rejoinder.core.settings", "rejoinder.core.wire"),
    "rejoinder.core.reply": (
        *("rejoinder.core.audio", "rejoinder.core.capacity", "rejoinder.core.measuring"),
        *("rejoinder.core.resilience", "rejoinder.core.settings"),
    ),
    "rejoinder.core.turns": ("rejoinder.core.audio", "rejoinder.core.measuring", "rejoinder.core.settings"),
    "rejoinder.core.wire": (
        "rejoinder.core.errors",
        "rejoinder.core.audio",
        "rejoinder.core.reply",
        "rejoinder.core.turns",
    ),
    "rejoinder.core.http_api": (
        *("rejoinder.core.errors", "rejoinder.core.reply", "rejoinder.core.settings"),
        *("rejoinder.core.turns", "rejoinder.core.wire"),
    ),
    "rejoinder.core.telephony": ("rejoinder.core.errors", "rejoinder.core.audio", "rejoinder.core.wire"),
    "rejoinder.core.survival": ("rejoinder.core.reply", "rejoinder.core.turns", "rejoinder.core.wire"),
    "rejoinder.store": ("rejoinder.core",),
    "actors.stages": ("rejoinder.core", "rejoinder.store"),
    "actors.listening": STAGES,
    "actors.replying": (*STAGES, "actors.listening"),
    "actors.turn_taking": (*STAGES, "actors.listening", "actors.replying"),
    "actors.stage_requests": STAGES,
    "actors.survival": ("rejoinder.core", "actors.stages"),
    "actors": ("rejoinder.core", "rejoinder.store"),
    "deployments.transports": ("rejoinder.core", "rejoinder.store", "actors", "deployments.serving.compat"),
    "deployments.talk_page": (),
    "deployments.stage_http": (
        *("rejoinder.core", "actors.stages", "actors.stage_requests", "actors.host", "deployments.serving.gate"),
    ),
    "deployments.tool_servers": ("rejoinder.core", "actors.stages"),
    "deployments.telephony": (
        *("rejoinder.core", "rejoinder.store", "actors"),
        *("deployments.transports", "deployments.serving.gate"),
    ),
    "deployments.serving": (
        *("rejoinder.core", "rejoinder.store", "actors"),
        *("deployments.transports", "deployments.talk_page", "deployments.stage_http", "deployments.telephony"),
    ),
    "deployments.survival": ("rejoinder.core", "actors.stages", "actors.survival"),
    "deployments.engines": (*STAGES, "deployments.serving"),
    "deployments.local": ("rejoinder.core", "rejoinder.store", "actors", "deployments"),
    "deployments.studies": (*STAGES, "deployments.engines"),
    "deployments": ("rejoinder.core", "rejoinder.store", "actors"),
    "cluster": ("rejoinder.core", "rejoinder.store", "actors", "deployments"),
    "loadtest.results": ("rejoinder.core",),
    "loadtest.scenario": ("rejoinder.core", "rejoinder.store"),
    "loadtest.turn_corpus": ("rejoinder.core", "rejoinder.store"),
    "loadtest.bandwidth": ("rejoinder.core", "rejoinder.store"),
    "loadtest.callers": ("rejoinder.core", "rejoinder.store", "loadtest.scenario", "loadtest.results"),
    "loadtest.judging": ("rejoinder.core", "loadtest.results", "loadtest.callers"),
    "loadtest.generator": (
        *("rejoinder.core", "rejoinder.store", "loadtest.scenario", "loadtest.results"),
        *("loadtest.callers", "loadtest.judging"),
    ),
    "loadtest.capacity": (
        *("rejoinder.core", "rejoinder.store", "loadtest.scenario", "loadtest.results"),
        *("loadtest.generator", "loadtest.bandwidth"),
    ),
    "loadtest.planning": ("rejoinder.core", "loadtest.capacity", "loadtest.judging"),
    "loadtest.benches": (
        *("rejoinder.core", "rejoinder.store", "loadtest.scenario", "loadtest.results"),
        *("loadtest.callers", "loadtest.generator", "loadtest.turn_corpus"),
    ),
    "loadtest": ("rejoinder.core", "rejoinder.store"),
    "benchmarks": PRODUCT,
    "rejoinder.cli": PRODUCT,
}
OURS = ("rejoinder", "actors", "deployments", "cluster", "loadtest", "benchmarks", "tests")
CORE_THIRD_PARTY = frozenset({"numpy"})
# num2words is a table of number words with pure functions; only the languages of spoken text use it.
SPOKEN_THIRD_PARTY = CORE_THIRD_PARTY | {"num2words"}
CONFIG_THIRD_PARTY = CORE_THIRD_PARTY | {"pydantic"}
# The modules of the standard library that the core may import. None of them gives access to clocks, the environment,
# files, concurrency, networks, randomness or logging.
STDLIB_IN_CORE = frozenset(
    {"__future__", "abc", "array", "base64", "binascii", "bisect", "collections", "contextlib", "copy", "dataclasses"}
    | {
        "decimal",
        "difflib",
        "enum",
        "fractions",
        "functools",
        "hashlib",
        "heapq",
        "hmac",
        "html",
        "ipaddress",
        "itertools",
        "json",
    }
    | {
        "math",
        "numbers",
        "operator",
        "re",
        "statistics",
        "string",
        "struct",
        "textwrap",
        "types",
        "typing",
        "unicodedata",
    }
)

MAX_FILE_LINES = 500
MAX_CLASS_LINES = 300
MAX_FUNCTION_LINES = 50
MAX_POSITIONAL = 4
MAX_MODULES = 15
MAX_DEPTH = 2
FORBIDDEN_NAMES = frozenset({"util", "utils", "helper", "helpers", "common", "manager", "managers", "base", "misc"})

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Module:
    """A Python file with its path from the repository's root, its text, its dotted name and its syntax tree."""

    path: Path
    source: str

    @property
    def name(self) -> str:
        parts = self.path.with_suffix("").parts
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.source)

    def at(self, node: ast.AST) -> str:
        return f"{self.path}:{getattr(node, 'lineno', 1)}"


Rule = Callable[[Module], Iterator[str]]
TreeRule = Callable[[list[Module]], Iterator[str]]


def layering(module: Module) -> Iterator[str]:
    """Yield a message for each import from a package of the repository that LAYERS does not allow to the module.

    Every module may import from its own package, and the version of `rejoinder`.
    """
    layer = _layer(module.name)
    if layer is None:
        return
    allowed = (layer, *LAYERS[layer])
    for node, imported in _imports(module):
        ours = imported.split(".")[0] in OURS and imported not in {"rejoinder", "rejoinder.__version__"}
        if ours and not any(_within(imported, name) for name in allowed):
            yield f"{module.at(node)} imports {imported}: {layer} may import only {', '.join(allowed)}"


def purity(module: Module) -> Iterator[str]:
    """Yield a message for each use of a clock, the environment, randomness, logging, concurrency or I/O in the core."""
    if not _within(module.name, "rejoinder.core"):
        return
    configures = _layer(module.name) == "rejoinder.core.settings"
    speaks = _within(module.name, "rejoinder.core.reply.spoken.languages")
    third_party = CONFIG_THIRD_PARTY if configures else SPOKEN_THIRD_PARTY if speaks else CORE_THIRD_PARTY
    for node, imported in _imports(module):
        top = imported.split(".")[0]
        if top not in STDLIB_IN_CORE | third_party and top != "rejoinder":
            yield f"{module.at(node)} imports {imported}, which is not known to be pure: pass its result in as a value"
    for node in ast.walk(module.tree):
        dotted = ast.unparse(node) if isinstance(node, ast.Attribute) else ""
        if dotted in {"np.random", "numpy.random"}:
            yield f"{module.at(node)} uses {dotted}: randomness is passed in"
        if isinstance(node, ast.AsyncFunctionDef | ast.Await):
            yield f"{module.at(node)} awaits: the core decides, the shell waits"
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in {"open", "print", "input"}
        ):
            yield f"{module.at(node)} calls {node.func.id}: the core does no input or output"


def file_size(module: Module) -> Iterator[str]:
    lines = len(module.source.splitlines())
    if lines > MAX_FILE_LINES:
        yield f"{module.path} has {lines} lines, at most {MAX_FILE_LINES}: split it by subject"


def class_size(module: Module) -> Iterator[str]:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.ClassDef) and (lines := _code_lines(node)) > MAX_CLASS_LINES:
            yield f"{module.at(node)} class {node.name} has {lines} lines, at most {MAX_CLASS_LINES}"


def function_size(module: Module) -> Iterator[str]:
    """Yield a message for each function with over MAX_FUNCTION_LINES lines, docstrings excluded."""
    for node in ast.walk(module.tree):
        if isinstance(node, Function) and (lines := _code_lines(node)) > MAX_FUNCTION_LINES:
            yield f"{module.at(node)} {node.name} has {lines} lines, at most {MAX_FUNCTION_LINES}"


def parameters(module: Module) -> Iterator[str]:
    """Yield a message for each function with more than MAX_POSITIONAL parameters that can be passed by position.

    `self` and `cls` are not counted.
    """
    for node in ast.walk(module.tree):
        if not isinstance(node, Function):
            continue
        names = [argument.arg for argument in (*node.args.posonlyargs, *node.args.args)]
        count = len(names) - (names[:1] in (["self"], ["cls"]))
        if count > MAX_POSITIONAL:
            yield f"{module.at(node)} {node.name} takes {count} positional arguments, at most {MAX_POSITIONAL}: add a *"


def file_names(module: Module) -> Iterator[str]:
    parts = {word for part in module.path.with_suffix("").parts for word in part.split("_")}
    for word in sorted(parts & FORBIDDEN_NAMES):
        yield f"{module.path}: `{word}` says nothing about what is inside: name the subject"


RULES: tuple[Rule, ...] = (layering, purity, file_size, class_size, function_size, parameters, file_names)


def inheritance_depth(modules: list[Module]) -> Iterator[str]:
    """Yield a message for each class with more than MAX_DEPTH levels of base classes from the repository."""
    bases = {
        f"{module.name}.{node.name}": (module.at(node), [_resolve(module, base) for base in node.bases])
        for module in modules
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ClassDef)
    }

    def depth(name: str) -> int:
        return max((1 + depth(base) for base in bases[name][1] if base in bases and base != name), default=0)

    for name, (where, _) in bases.items():
        if (levels := depth(name)) > MAX_DEPTH:
            yield f"{where} {name} has {levels} of our classes above it, at most {MAX_DEPTH}: compose instead"


def positional_calls(modules: list[Module]) -> Iterator[str]:
    """Yield a message for each call of a class of the repository with more than MAX_POSITIONAL arguments by position.

    The rule `parameters` does not see the generated signatures of dataclasses.
    """
    classes = {f"{module.name}.{node.name}" for module in modules for node in _classes(module)}
    for module in modules:
        names = _names(module)
        for node in ast.walk(module.tree):
            if (
                not isinstance(node, ast.Call)
                or sum(not isinstance(a, ast.Starred) for a in node.args) <= MAX_POSITIONAL
            ):
                continue
            head, _, rest = ast.unparse(node.func).partition(".")
            if ".".join(filter(None, [names.get(head, f"{module.name}.{head}"), rest])) in classes:
                yield f"{module.at(node)} passes more than {MAX_POSITIONAL} arguments by position: name them"


def unique_names(modules: list[Module]) -> Iterator[str]:
    """Yield a message for each public class that has the name of an earlier one. Classes of tests are not compared."""
    first: dict[str, str] = {}
    for module in modules:
        if _within(module.name, "tests"):
            continue
        for node in module.tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                where = first.setdefault(node.name, module.at(node))
                if where != module.at(node):
                    yield f"{module.at(node)} class {node.name} is also defined in {where}: name what differs"


def folder_size(modules: list[Module]) -> Iterator[str]:
    """Yield a message for each folder with more than MAX_MODULES modules, `__init__` not counted."""
    folders = Counter(module.path.parent for module in modules if module.path.stem != "__init__")
    for folder, count in folders.items():
        if count > MAX_MODULES:
            yield f"{folder} has {count} modules, at most {MAX_MODULES}: group them by subject"


TREE_RULES: tuple[TreeRule, ...] = (inheritance_depth, positional_calls, unique_names, folder_size)


def _classes(module: Module) -> Iterator[ast.ClassDef]:
    return (node for node in module.tree.body if isinstance(node, ast.ClassDef))


def _layer(name: str) -> str | None:
    return max((layer for layer in LAYERS if _within(name, layer)), key=len, default=None)


def _within(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def _imports(module: Module) -> Iterator[tuple[ast.AST, str]]:
    """Yield each import of a module: its syntax node and the full dotted name.

    For `from package import name` that is `package.name`, because `name` may be a module.
    """
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            yield from ((node, alias.name) for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            source = _source(module, node)
            yield from ((node, f"{source}.{alias.name}") for alias in node.names)


def _source(module: Module, node: ast.ImportFrom) -> str:
    """Return the absolute dotted name of the module from which a `from` import imports."""
    if not node.level:
        return node.module or ""
    package = module.name.split(".") if module.path.stem == "__init__" else module.name.split(".")[:-1]
    return ".".join([*package[: len(package) - node.level + 1], *([node.module] if node.module else [])])


def _code_lines(node: ast.ClassDef | Function) -> int:
    documented = (inner for inner in ast.walk(node) if isinstance(inner, ast.ClassDef | Function))
    docstrings = (inner.body[0] for inner in documented if ast.get_docstring(inner, clean=False) is not None)
    return _span(node) - sum(_span(docstring) for docstring in docstrings)


def _span(node: ast.stmt) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def _resolve(module: Module, base: ast.expr) -> str:
    """Return the full dotted name of a base class, as far as the module's own imports tell."""
    head, _, rest = ast.unparse(base.value if isinstance(base, ast.Subscript) else base).partition(".")
    return ".".join(filter(None, [_names(module).get(head, f"{module.name}.{head}"), rest]))


def _names(module: Module) -> dict[str, str]:
    """Return the full dotted name of each name that the module imports."""
    names: dict[str, str] = {}
    for node in ast.walk(module.tree):
        if isinstance(node, ast.ImportFrom | ast.Import):
            source = f"{_source(module, node)}." if isinstance(node, ast.ImportFrom) else ""
            for alias in node.names:
                names[alias.asname or alias.name] = f"{source}{alias.name}"
    return names


@cache
def repository() -> list[Module]:
    files = sorted(path for top in (*OURS, "scripts") for path in (ROOT / top).rglob("*.py"))
    return [Module(path.relative_to(ROOT), path.read_text(encoding="utf-8")) for path in files]


def sample(path: str, source: str) -> Module:
    return Module(Path(path), source)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_repository_keeps_the_rule(rule: Rule) -> None:
    """No module of the repository violates the rule. The failure lists the violations."""
    offences = [offence for module in repository() for offence in rule(module)]
    assert not offences, "\n" + "\n".join(offences)


@pytest.mark.parametrize("rule", TREE_RULES, ids=lambda rule: rule.__name__)
def test_the_tree_keeps_the_rule(rule: TreeRule) -> None:
    """The modules of the repository, checked together, do not violate the rule. The failure lists the violations."""
    offences = list(rule(repository()))
    assert not offences, "\n" + "\n".join(offences)


def test_the_rules_see_the_repository() -> None:
    """The checked modules include every package of LAYERS, so a renamed package does not escape the rules."""
    names = {module.name for module in repository()}
    assert {"rejoinder.core.errors", "actors.stages.ports", "tests.test_structure"} <= names
    assert {layer for name in names if (layer := _layer(name))} == set(LAYERS)


LONG_BODY = "\n".join(f"    x{line} = {line}" for line in range(MAX_FUNCTION_LINES))
LONG_CLASS = "\n".join(f"    x{line} = {line}" for line in range(MAX_CLASS_LINES))
OFFENDERS: list[tuple[Rule, str, str]] = [
    (layering, "rejoinder/core/x.py", "from actors.stages.ports import Vad"),
    (layering, "rejoinder/store/x.py", "import deployments.app"),
    (layering, "actors/x.py", "from deployments import app"),
    (layering, "actors/x.py", "from rejoinder.cli import main"),
    (layering, "actors/x.py", "from rejoinder import cli"),
    (layering, "loadtest/x.py", "def f():\n    from actors.stages.ports import Vad"),
    (layering, "rejoinder/core/x.py", "from ..store import manifest"),
    (layering, "actors/listening/x.py", "from actors.replying import reply"),
    (layering, "loadtest/results/x.py", "import loadtest.callers.call_socket"),
    (layering, "cluster/x.py", "import benchmarks.studies"),
    *[
        (purity, "rejoinder/core/x.py", f"import {name}")
        for name in ("asyncio", "time", "logging", "random", "ray", "os")
    ],
    (purity, "rejoinder/core/x.py", "from os import environ"),
    (purity, "rejoinder/core/x.py", "import pydantic"),
    (purity, "rejoinder/core/x.py", "import numpy as np\nx = np.random.default_rng()"),
    (purity, "rejoinder/core/x.py", "async def f(): ..."),
    (purity, "rejoinder/core/x.py", "print('hello')"),
    (file_size, "actors/x.py", "\n" * (MAX_FILE_LINES + 1)),
    (class_size, "actors/x.py", f"class C:\n{LONG_CLASS}"),
    (function_size, "actors/x.py", f"def f():\n{LONG_BODY}"),
    (function_size, "actors/x.py", f"class C:\n  async def f(\n    self):\n{LONG_BODY}"),
    (parameters, "actors/x.py", "def f(a, b, /, c, d, e): ..."),
    (file_names, "actors/utils.py", ""),
    (file_names, "actors/session_manager.py", ""),
]
CLEAN: list[tuple[Rule, str, str]] = [
    (layering, "rejoinder/cli/x.py", "from deployments import app\nimport loadtest.callers.openai_caller"),
    (layering, "tests/core/test_x.py", "import deployments.app"),
    (purity, "rejoinder/core/settings/settings.py", "import pydantic"),
    (purity, "actors/x.py", "import asyncio"),
    (
        function_size,
        "actors/x.py",
        f'def f():\n    """One.\n\n    Two.\n    """\n{LONG_BODY[: LONG_BODY.rindex(chr(10))]}',
    ),
    (parameters, "actors/x.py", "class C:\n    def f(self, a, b, c, d, *, e, f, g): ..."),
    (layering, "actors/session.py", "from actors.turn_taking import command_executor"),
]


@pytest.mark.parametrize(("rule", "path", "source"), OFFENDERS)
def test_each_rule_finds_its_offender(rule: Rule, path: str, source: str) -> None:
    """A module that violates the rule is reported with its path."""
    assert [offence for offence in rule(sample(path, source)) if offence.startswith(path)]


@pytest.mark.parametrize(("rule", "path", "source"), CLEAN)
def test_no_rule_reports_what_is_allowed(rule: Rule, path: str, source: str) -> None:
    """A module that keeps the rule is not reported."""
    assert not list(rule(sample(path, source)))


def test_inheritance_is_followed_across_modules() -> None:
    """`inheritance_depth` follows base classes through imports and aliases, and does not count built-in classes."""
    modules = [
        sample("actors/a.py", "class A(Exception): ...\nclass B(A): ..."),
        sample("actors/b.py", "from actors.a import B as Other\nclass C(Other): ..."),
        sample("actors/c.py", "import actors.b\nfrom actors import b\nclass D(b.C): ..."),
    ]
    assert [offence.split()[1] for offence in inheritance_depth(modules)] == ["actors.c.D"]


def test_four_arguments_by_position_are_enough() -> None:
    """`positional_calls` finds a fifth positional argument where a class is called, also under an imported name.

    Calls of functions and keyword arguments do not count.
    """
    modules = [
        sample("actors/a.py", "class A: ...\nA(1, 2, 3, 4, 5)\nA(1, 2, 3, 4, e=5)\nprint(1, 2, 3, 4, 5)"),
        sample(
            "actors/b.py", "from actors import a\nfrom actors.a import A as B\na.A(1, 2, 3, 4, 5)\nB(1, 2, 3, 4, 5)"
        ),
    ]
    found = [offence.split()[0] for offence in positional_calls(modules)]
    assert found == ["actors/a.py:2", "actors/b.py:3", "actors/b.py:4"]


def test_a_class_name_is_used_once() -> None:
    """`unique_names` reports a public class with the name of an earlier one. Private and test classes do not count."""
    one, other = "class A: ...\nclass _B: ...", "class A: ...\nclass _B: ...\nclass C: ..."
    modules = [sample("actors/a.py", one), sample("cluster/b.py", other), sample("tests/test_c.py", "class C: ...")]
    assert [offence.split()[:3] for offence in unique_names(modules)] == [["cluster/b.py:1", "class", "A"]]


def test_a_folder_holds_fifteen_modules() -> None:
    """`folder_size` reports a folder with a sixteenth module. `__init__` and subfolders do not count."""
    paths = ["actors/__init__.py", "actors/more/x.py", *(f"actors/m{number}.py" for number in range(MAX_MODULES))]
    assert not list(folder_size([sample(path, "") for path in paths]))
    assert list(folder_size([sample(path, "") for path in [*paths, "actors/one_more.py"]]))
