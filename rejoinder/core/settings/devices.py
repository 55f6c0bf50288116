"""On which device the engine of a stage computes: the CPU, or a GPU that Ray reserves for the replica."""

from __future__ import annotations

from typing import Literal

Device = Literal["auto", "cpu", "cuda"]
"""`auto`: the GPU if the replica reserves one, else the CPU."""

GPU_ENGINES = frozenset({"vllm", "emulated", "whisper", "embedded", "piper"})
"""Engines whose replicas may reserve GPUs. `emulated` may, so that placement can be tested on declared GPUs."""

DEVICE_ENGINES = frozenset({"", "whisper", "embedded", "piper"})
"""Engines that read the setting `device`. "" is the only engine of a stage without the setting `engine`."""

WHISPER_GPU_TYPES = frozenset({"float16", "int8_float16"})
"""Values of `stt.compute_type` for which CTranslate2 needs a GPU."""


def device_fault(engine: str, device: Device, num_gpus: float) -> str:
    """Return what is wrong with the device and the GPUs of a stage, with the fix; "" if they fit together.

    Args:
        engine: Engine of the stage; "" if the stage has only one.
        device: The setting `device`.
        num_gpus: GPUs that each replica reserves.
    """
    owner = f"engine {engine}" if engine else "this stage"
    if engine not in DEVICE_ENGINES:
        if num_gpus and engine not in GPU_ENGINES:
            return f"resources.num_gpus must be 0: {owner} computes on its own server"
        return f"device must be auto: {owner} does not read it" if device != "auto" else ""
    if device == "cpu" and num_gpus:
        return f"device cpu does not use resources.num_gpus {num_gpus:g}: set num_gpus to 0, or device to auto"
    if device == "cuda" and not num_gpus:
        return (
            "device cuda needs a GPU, and Ray hides the GPUs from a replica that reserves none: "
            "set resources.num_gpus, for example to 0.25"
        )
    if num_gpus > 1:
        return f"resources.num_gpus must be at most 1: a replica of {owner} uses one GPU"
    return ""
