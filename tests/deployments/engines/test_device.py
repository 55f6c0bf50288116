"""Tests of the checks that a replica with a GPU makes before it loads its model."""

from __future__ import annotations

import shutil
import subprocess
from functools import partial
from pathlib import Path

import pytest

from deployments.engines.device import (
    CPU,
    REAL_PROBES,
    EngineDevice,
    GpuProbes,
    Runtime,
    RuntimeFault,
    bytes_of,
    open_device,
    visible_gpus,
)
from rejoinder.core.errors import ConfigError
from rejoinder.core.settings.settings import SttSettings, parse_settings

CARD = 16_000_000_000
DRIVER = """
static long sizes[] = {24000000000, 16000000000};
int cuInit(unsigned flags) { return INIT; }
int cuDeviceGetCount(int *count) { *count = 2; return 0; }
int cuDeviceGet(int *device, int ordinal) { *device = ordinal; return 0; }
int cuDeviceTotalMem_v2(unsigned long *bytes, int device) { *bytes = sizes[device]; return 0; }
"""


def probes(memory: list[int], **faults: RuntimeFault) -> GpuProbes:
    """Return probes of a process with GPUs of this memory, whose runtimes can use them but for `faults`."""
    runtimes: tuple[Runtime, ...] = ("onnxruntime", "ctranslate2", "llama.cpp")
    return GpuProbes(lambda: memory, {name: partial(faults.get, name) for name in runtimes})


def stt(num_gpus: float) -> SttSettings:
    return parse_settings({"stt": {"resources": {"num_gpus": num_gpus}}}).stt


def test_a_stage_without_a_gpu_is_not_checked() -> None:
    """A stage that reserves no GPU computes on the CPU, whatever the machine has."""
    assert open_device("stt", stt(0), {"ctranslate2": 1e12}, probes([])) == CPU


def test_a_model_that_fits_gets_its_share() -> None:
    """The device is the GPU with the replica's share of its memory, and names the setting."""
    device = open_device("stt", stt(0.25), {"ctranslate2": 2e9}, probes([CARD]))
    assert device == EngineDevice("cuda", CARD // 4, "args.stt.device")


@pytest.mark.parametrize(
    ("share", "weights", "known", "says", "field"),
    [
        (0.25, 1e9, probes([]), "CUDA shows no GPU to this replica", "args.stt.resources.num_gpus"),
        (
            0.25,
            1e9,
            probes([CARD], ctranslate2=RuntimeFault("ctranslate2 is old", "Install a newer one")),
            r"ctranslate2 is old\. Install a newer one, or set it to 0",
            "args.stt.resources.num_gpus",
        ),
        (
            0.25,
            3.1e9,
            probes([CARD]),
            r"needs about 5\.2 GB, and 0\.25 of the GPU's 16\.0 GB is less\. Set it to 0\.33 or more",
            "args.stt.resources.num_gpus",
        ),
        (1, 11e9, probes([CARD]), r"needs about 17\.0 GB .* has 16\.0 GB\. Choose a smaller", "args.stt.model"),
    ],
)
def test_a_gpu_that_cannot_be_used_names_the_setting(
    share: float, weights: float, known: GpuProbes, *, says: str, field: str
) -> None:
    """No GPU, a runtime without CUDA and a share that is too small are errors with the setting to change."""
    with pytest.raises(ConfigError, match=says) as refused:
        open_device("stt", stt(share), {"ctranslate2": weights}, known)
    assert refused.value.field == field


def test_the_suggested_share_suffices() -> None:
    """A replica with the share that the error suggests starts."""
    assert open_device("stt", stt(0.33), {"ctranslate2": 3.1e9}, probes([CARD])).name == "cuda"


def test_all_runtimes_of_a_stage_share_the_gpu() -> None:
    """Both recognizers of speech to text count: 2 GB fit a quarter of the GPU, two times 2 GB do not."""
    assert open_device("stt", stt(0.25), {"ctranslate2": 2e9, "onnxruntime": 0.1e9}, probes([CARD])).name == "cuda"
    with pytest.raises(ConfigError, match=r"Set it to 0\.41"):
        open_device("stt", stt(0.25), {"ctranslate2": 2e9, "onnxruntime": 2e9}, probes([CARD]))


def test_only_the_runtimes_of_the_stage_are_checked() -> None:
    """A voice needs onnxruntime only, so a llama.cpp without CUDA does not matter to it."""
    known = probes([CARD], **{"llama.cpp": RuntimeFault("no CUDA", "Install it")})
    assert open_device("stt", stt(0.25), {"onnxruntime": 1e8}, known).name == "cuda"


@pytest.mark.parametrize(("status", "found"), [(0, [24_000_000_000, 16_000_000_000]), (100, [])])
def test_the_drivers_library_is_asked(tmp_path: Path, status: int, found: list[int]) -> None:
    """The memory of each GPU comes from the driver. A driver that finds no GPU (status 100) means none.

    The driver is a compiled stand-in with CUDA's signatures, so the types of the arguments are tested too.
    """
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    library = tmp_path / "libcuda.so"
    (tmp_path / "driver.c").write_text(DRIVER.replace("INIT", str(status)))
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, tmp_path / "driver.c"], check=True)
    assert visible_gpus(str(library)) == found


def test_without_a_driver_there_is_no_gpu() -> None:
    """A machine without CUDA's driver has no GPU; that is not an error."""
    assert visible_gpus("libno-such-driver.so.1") == []


@pytest.mark.skipif(bool(visible_gpus()), reason="needs a machine without a GPU")
@pytest.mark.parametrize("runtime", list(REAL_PROBES.runtimes))
def test_the_installed_packages_say_what_they_lack(runtime: Runtime) -> None:
    """On a machine without a GPU, each runtime names its package and version, and what to install."""
    fault = REAL_PROBES.runtimes[runtime]()
    assert fault is not None
    assert runtime.replace("llama.cpp", "xllamacpp") in fault.message
    assert fault.remedy.startswith(("Install", "Run `pip"))


def test_a_missing_file_counts_as_empty(tmp_path: Path) -> None:
    """Sizes of files are added up; a missing file is left to the engine, whose error says how to fetch it."""
    (tmp_path / "a").write_bytes(b"12345")
    assert bytes_of([tmp_path / "a", tmp_path / "b"]) == 5
