"""The device of an engine, and the checks of a replica that reserves a GPU, before it loads its model.

Ray shows a replica only the GPUs that it reserved (CUDA_VISIBLE_DEVICES), so the replica's GPU is always the first one.
The runtimes are imported where they are checked: a replica of one stage need not load those of the others.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rejoinder.core.capacity.gpu_memory import least_share, needed_bytes
from rejoinder.core.errors import ConfigError
from rejoinder.core.settings.settings import StageSettings

CUDA_PROVIDER = "CUDAExecutionProvider"
CUBLAS = "libcublas.so.12"
"""Library that CTranslate2's package loads at its first computation on a GPU."""

Runtime = Literal["ctranslate2", "onnxruntime", "llama.cpp"]


@dataclass(frozen=True, slots=True)
class EngineDevice:
    """Where an engine computes.

    Attributes:
        name: "cpu" or "cuda", which is the first GPU that CUDA shows to this process.
        memory_bytes: The replica's share of the GPU's memory; 0 on the CPU.
        field: The setting that chose the GPU, for error messages.
    """

    name: Literal["cpu", "cuda"] = "cpu"
    memory_bytes: int = 0
    field: str = ""


CPU = EngineDevice()


@dataclass(frozen=True, slots=True)
class RuntimeFault:
    """Why a runtime cannot use a GPU, and how to install one that can."""

    message: str
    remedy: str


@dataclass(frozen=True)
class GpuProbes:
    """How to find out what this process can use.

    Attributes:
        memory: Returns the memory in bytes of each GPU that CUDA shows to this process.
        runtimes: For each runtime, a function that returns why it cannot use a GPU, None if it can.
    """

    memory: Callable[[], list[int]]
    runtimes: Mapping[Runtime, Callable[[], RuntimeFault | None]]


def visible_gpus(library: str = "libcuda.so.1") -> list[int]:
    """Return the memory in bytes of each GPU that CUDA shows to this process; an empty list without a driver.

    Args:
        library: Name or path of the driver's library.
    """
    try:
        driver = ctypes.CDLL(library)
    except OSError:
        return []
    count = ctypes.c_int()
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)):
        return []
    sizes = []
    for index in range(count.value):
        device, total = ctypes.c_int(), ctypes.c_size_t()
        if not driver.cuDeviceGet(ctypes.byref(device), index):
            driver.cuDeviceTotalMem_v2(ctypes.byref(total), device)
            sizes.append(total.value)
    return sizes


def onnxruntime_fault() -> RuntimeFault | None:
    """Return why onnxruntime cannot use a GPU; None if it can."""
    import onnxruntime

    onnxruntime.preload_dlls()  # a provider in a library of its own registers itself once CUDA is loaded
    if CUDA_PROVIDER in onnxruntime.get_available_providers():
        return None
    version = onnxruntime.__version__
    return RuntimeFault(
        f"the installed onnxruntime {version} computes on the CPU only",
        f"Run `pip uninstall onnxruntime` and `pip install onnxruntime-gpu=={version}` on this node",
    )


def ctranslate2_fault() -> RuntimeFault | None:
    """Return why CTranslate2 cannot use a GPU; None if it can."""
    import ctranslate2

    if not ctranslate2.get_cuda_device_count():
        return RuntimeFault(
            f"ctranslate2 {ctranslate2.__version__} finds no GPU", "Install a driver for CUDA 12 or newer on this node"
        )
    try:
        # Loaded by its name, as CTranslate2 does.
        ctypes.CDLL(CUBLAS)
    except OSError:
        return RuntimeFault(
            f"ctranslate2 {ctranslate2.__version__} needs {CUBLAS}, which is not on the library path",
            "Install cuBLAS for CUDA 12 on this node (docs/how-to/gpus-and-vllm.md)",
        )
    return None


def llama_cpp_fault() -> RuntimeFault | None:
    """Return why llama.cpp cannot compute layers on a GPU; None if it can."""
    import xllamacpp

    gpu = xllamacpp.ggml_backend_dev_type.GGML_BACKEND_DEVICE_TYPE_GPU
    if any(device["type"] == gpu for device in xllamacpp.get_device_info()):
        return None
    return RuntimeFault(
        f"the installed xllamacpp {xllamacpp.__version__} finds no GPU",
        "Install its build for CUDA on this node (docs/how-to/gpus-and-vllm.md)",
    )


REAL_PROBES = GpuProbes(
    visible_gpus,
    {"onnxruntime": onnxruntime_fault, "ctranslate2": ctranslate2_fault, "llama.cpp": llama_cpp_fault},
)


def open_device(
    section: str, stage: StageSettings, weights: Mapping[Runtime, float], probes: GpuProbes | None = None
) -> EngineDevice:
    """Return the device of a replica, after checks that its GPU is there and that its model fits.

    Args:
        section: Section of the settings, for error messages.
        stage: Its settings.
        weights: Bytes of the weights on the GPU, by the runtime that loads them.
        probes: How to find out what this process can use; None: `REAL_PROBES`.

    Raises:
        ConfigError: The replica reserves a GPU, but there is none, a runtime cannot use it, or the share is too small
            for the model. The error names the setting to change.
    """
    if not stage.on_gpu:
        return CPU
    field, share = f"args.{section}.resources.num_gpus", stage.reservation.num_gpus
    probes = probes or REAL_PROBES
    gpus = probes.memory()
    if not gpus:
        remedy = f"Set it to 0, or {section}.resources.label_selector to nodes with a GPU and its driver."
        raise ConfigError("CUDA shows no GPU to this replica.", remedy, field=field)
    for runtime in weights:
        if fault := probes.runtimes[runtime]():
            raise ConfigError(f"{fault.message}.", f"{fault.remedy}, or set it to 0.", field=field)
    needed, total = needed_bytes(sum(weights.values())), gpus[0]
    if needed > total:
        message = f"the model needs about {_gb(needed)} of GPU memory, and the GPU has {_gb(total)}."
        remedy = "Choose a smaller model or number format, or a larger GPU."
        raise ConfigError(message, remedy, field=f"args.{section}.model")
    if needed > total * share:
        message = f"the model needs about {_gb(needed)}, and {share:g} of the GPU's {_gb(total)} is less."
        raise ConfigError(message, f"Set it to {least_share(needed, total):g} or more.", field=field)
    return EngineDevice("cuda", int(total * share), f"args.{section}.device")


def bytes_of(files: Iterable[Path]) -> int:
    """Return the size of all files together. A missing file counts as empty, because its engine reports it."""
    return sum(file.stat().st_size for file in files if file.is_file())


def _gb(size: int) -> str:
    return f"{size / 1e9:.1f} GB"
