"""`rejoinder plan`: the hardware for a number of conversations, from a calibration of a running server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from rejoinder.cli.extras import need_load_extra
from rejoinder.cli.plan.grouped_options import grouped
from rejoinder.core.capacity.budgets import Tier
from rejoinder.core.capacity.providers import Choice, choose
from rejoinder.core.errors import ConfigError
from rejoinder.core.settings.devices import DEVICE_ENGINES, GPU_ENGINES
from rejoinder.core.settings.serve_file import ServeFile, parse_serve_file
from rejoinder.core.settings.settings import LlmSettings, Settings, SttSettings, TtsSettings, parse_settings

# At run time the command imports these modules itself: they need the extra `load` and take a second to import.
if TYPE_CHECKING:
    from loadtest.capacity.calibration import Calibration
    from loadtest.capacity.turn_network import TurnNetwork

STAGES = ("stt", "llm", "tts")
PUBLISHED_SLOTS = 16
"""Number of concurrent requests that one replica sends to a provider. An assumption: no provider publishes it."""


@dataclass(frozen=True, slots=True)
class PlanOptions:
    """Options of `rejoinder plan`. The `help` of each field is its documentation."""

    sessions: Annotated[
        int, typer.Option(min=0, help="Average number of concurrent conversations. Required without --day.")
    ] = 0
    day: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="CSV file of a day's calls (columns time, calls): plan its highest load, and let replicas scale down "
            "to its lowest.",
        ),
    ] = None
    call_s: Annotated[float, typer.Option(min=0, help="Mean length of a call in seconds. Required with --day.")] = 0.0
    tier: Annotated[Tier, typer.Option(help="Tier of the latency guide whose total latency the median must meet.")] = (
        Tier.GOOD
    )
    p95_ms: Annotated[
        float, typer.Option(min=1, help="Limit of the 95th percentile of voice-to-voice latency, in ms.")
    ] = 1200.0
    spare: Annotated[int, typer.Option(min=0, help="Nodes of each group that may die, with all replicas on them.")] = 1
    refused: Annotated[float, typer.Option(min=1e-6, max=0.5, help="Share of calls that may be refused.")] = 0.005
    calibration: Annotated[Path | None, typer.Option(metavar="FILE", help="Calibration that --save wrote earlier.")] = (
        None
    )
    url: Annotated[str, typer.Option(help="Server to calibrate with, ws://HOST:PORT/v1; needs --knee.")] = ""
    knee: Annotated[
        int, typer.Option(help="Rough number of sessions that the server carries. Runs hold 20, 40 and 60% of it.")
    ] = 0
    for_s: Annotated[float, typer.Option("--for", min=10, help="Duration of each calibration run in seconds.")] = 60.0
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE|@FILE", help="Scenario of the calibration; see load run."),
    ] = None
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The server's ray_config.yaml. Default with --calibration: the calibrated settings, from which a file "
            "may differ in sizes only.",
        ),
    ] = None
    save: Annotated[Path | None, typer.Option(metavar="FILE", help="File in which to store the calibration.")] = None
    engines: Annotated[
        str,
        typer.Option(help="calibrated, or published: the guide's fastest providers that Rejoinder can use."),
    ] = "calibrated"
    gpus: Annotated[
        str,
        typer.Option(
            metavar="STAGE=SHARE,...",
            help="GPUs of one replica, for example stt=0.25,llm=1. The calibration must be of stages on such GPUs.",
        ),
    ] = ""
    llm_billions: Annotated[
        float,
        typer.Option(
            min=0,
            max=1000,
            help="Parameters of the language model in billions: also print its GPUs by published figures.",
        ),
    ] = 0.0
    llm_bits: Annotated[int, typer.Option(min=4, max=16, help="Bits per weight for --llm-billions.")] = 16
    cpu_node: Annotated[
        str,
        typer.Option(
            metavar="CORES:GB",
            help="Machine type without a GPU. With --prices its name there; default: the cheapest. Else 16:64.",
        ),
    ] = ""
    gpu_node: Annotated[
        str,
        typer.Option(
            metavar="CORES:GB:GPUS[:KIND]",
            help="Machine type with GPUs, as 16:64:1:L4. With --prices its name there; default: the cheapest. Else "
            "16:64:1.",
        ),
    ] = ""
    prices: Annotated[
        Path | None, typer.Option(metavar="FILE", help="YAML file of machine types with their price per hour.")
    ] = None
    per_host: Annotated[int, typer.Option(min=0, help="Most sessions of one host. 0: as many as one core carries.")] = 0
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="File for the plan; keys: loadtest/capacity/plan.py.")
    ] = None
    write: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder for ray_config.yaml and node_groups.yaml.")
    ] = None
    launch: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Launch description without profile, and with groups only for addresses. With --write: also write "
            "what starts the cluster, for `ray up` with addresses, else for KubeRay.",
        ),
    ] = None
    html: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Page to read and sign: what to buy, why, risks, and what the choices cost."),
    ] = None


@grouped(PlanOptions)
def plan(options: PlanOptions) -> None:
    """Compute replicas, nodes and network for a number of conversations, from a calibration of a running server.

    Every figure is labelled measured, predicted (within the calibrated range), extrapolated (outside of it),
    published (by a provider) or given. The written configuration works with `rejoinder serve` and `serve deploy`.

    Exit status: 0, or 2 if the target cannot be planned.
    """
    need_load_extra()
    from cluster.config_file import read_config
    from loadtest.capacity.calibrated_settings import refuse_other_settings
    from loadtest.capacity.plan import PlanResources
    from loadtest.capacity.plan import plan as make
    from rejoinder.cli.plan.inputs import capacity_target, machines, read_inputs
    from rejoinder.cli.plan.outputs import PlannedFiles, show, write_files
    from rejoinder.cli.plan.sources import calibrated, published

    # A wrong option must be reported before the calibration and simulation, which take minutes.
    inputs = read_inputs(options)
    target = capacity_target(options, inputs)
    gpus = shares(options.gpus)
    resources = PlanResources(
        gpus,
        cpu_nodes=machines(options.cpu_node, inputs, gpus=False),
        gpu_nodes=machines(options.gpu_node, inputs, gpus=True),
        most_per_host=options.per_host or None,
        engines_calibrated=options.engines == "calibrated",
    )
    base = read_config(options.config)
    if options.engines not in ("calibrated", "published"):
        raise ConfigError(f"unknown value {options.engines!r}.", "Use calibrated or published.", field="--engines")
    chosen = {stage: choose(stage, options.tier, reachable=True) for stage in ("stt", "llm")}
    planned = _planned_engines(options, base.application.args, chosen)
    if options.url or options.config:
        refuse_unused_gpus(gpus, planned)
    if options.url:
        refuse_unmeasured_devices(gpus, planned, base.application.args)
    found = calibrated(options, base.application.args)
    if options.config is None:
        base = calibrated_file(found)
        planned = _planned_engines(options, base.application.args, chosen)
        refuse_unused_gpus(gpus, planned)
    refuse_other_settings(found, base.application.args)
    refuse_unmeasured_devices(gpus, planned, parse_settings(found.settings))
    refuse_unused_estimate(options, planned["llm"])
    network = _network(found)
    if options.engines == "published":
        network = published(network, chosen, PUBLISHED_SLOTS)
    made = make(found, network, target, resources)
    files = PlannedFiles(
        made, calibration=found, network=network, resources=resources, base=base, chosen=chosen, inputs=inputs
    )
    console = Console(highlight=False)
    show(files, options, console)
    write_files(files, options, console)


def calibrated_file(found: Calibration) -> ServeFile:
    """Return a `ray_config.yaml` with the calibrated settings; those with their default values are left out."""
    args = parse_settings(found.settings).model_dump(mode="json", exclude_defaults=True)
    return parse_serve_file({"applications": [{"args": args}]})


def _network(found: Calibration) -> TurnNetwork:
    """Return the model of the stages' queues, fitted to the calibration.

    If the language model and the voice were emulated, the lengths of replies are computed from their settings.
    """
    from deployments.engines.emulated import WORDS
    from loadtest.capacity.emulated_network import emulated_reply
    from loadtest.capacity.network_fit import fit

    settings = parse_settings(found.settings)
    emulated = settings.llm.engine == settings.tts.engine == "emulated"
    return fit(found, emulated_reply(settings, WORDS) if emulated else None)


def shares(text: str) -> dict[str, float]:
    """Return the GPUs of one replica by stage, from text such as "stt=0.25,llm=1". Empty text gives an empty mapping.

    Raises:
        ConfigError: A stage is unknown, or a number is invalid or negative.
    """
    gpus = {}
    for part in filter(None, text.split(",")):
        stage, _, share = part.partition("=")
        try:
            gpus[stage.strip()] = float(share)
        except ValueError:
            raise ConfigError(f"{part!r} is not STAGE=SHARE.", "Write for example llm=1.", field="--gpus") from None
    unknown = sorted(set(gpus) - set(STAGES))
    if unknown or any(share < 0 for share in gpus.values()):
        remedy = f"Write STAGE=SHARE; stages: {', '.join(STAGES)}."
        raise ConfigError(f"{text!r} has an unknown stage or a negative share.", remedy, field="--gpus")
    return gpus


def _planned_engines(options: PlanOptions, settings: Settings, chosen: Mapping[str, Choice]) -> dict[str, str]:
    """Return the engine name of each stage (stt, llm, tts) in the configuration that the plan writes.

    These are the engines of `settings`. With `--engines published`, those of the chosen providers replace them.
    """
    engines: dict[str, str] = {"stt": settings.stt.engine, "llm": settings.llm.engine, "tts": settings.tts.engine}
    if options.engines == "published":
        engines |= {stage: str(choice.provider.settings["engine"]) for stage, choice in chosen.items()}
    return engines


def refuse_unused_gpus(gpus: Mapping[str, float], engines: Mapping[str, str]) -> None:
    """Raise ConfigError if `--gpus` gives a GPU to a stage whose engine cannot use it.

    Args:
        gpus: GPUs of one replica, by stage.
        engines: Engine of each stage.
    """
    for stage, share in gpus.items():
        if share and engines[stage] not in GPU_ENGINES:
            raise ConfigError(
                f"num_gpus of {stage} must be 0: engine {engines[stage]} computes on its own server.",
                f"Leave {stage} out.",
                field="--gpus",
            )


def refuse_unused_estimate(options: PlanOptions, engine: str) -> None:
    """Raise ConfigError if `--llm-billions` asks for the GPUs of a language model whose engine cannot use one."""
    if options.llm_billions and engine not in GPU_ENGINES:
        raise ConfigError(
            f"engine {engine} of llm computes on its own server.", "Leave it out.", field="--llm-billions"
        )


def refuse_unmeasured_devices(gpus: Mapping[str, float], engines: Mapping[str, str], calibrated: Settings) -> None:
    """Raise ConfigError if a stage would run on another device than in the calibration.

    The service times of one device say nothing about another one. An emulated engine computes on none, and vLLM's
    GPUs are checked by its own settings.

    Args:
        gpus: GPUs of one replica, by stage.
        engines: Engine of each stage.
        calibrated: Settings of the calibrated deployment.
    """
    stages: Mapping[str, SttSettings | LlmSettings | TtsSettings] = {
        "stt": calibrated.stt,
        "llm": calibrated.llm,
        "tts": calibrated.tts,
    }
    for name, stage in stages.items():
        planned, measured = gpus.get(name, 0.0), stage.resources.num_gpus
        if engines[name] not in DEVICE_ENGINES or planned == measured:
            continue
        was = f"with num_gpus {measured:g}" if measured else "on the CPU"
        raise ConfigError(
            f"the calibration measured {name} {was}; its speed with num_gpus {planned:g} is unknown.",
            f"Calibrate a server with {name}.resources.num_gpus {planned:g}, or use `--gpus {name}={measured:g}`.",
            field="--gpus",
        )


def slots(settings: Settings) -> dict[str, int]:
    """Return how many requests one replica serves at once, for each stage (stt, llm, tts) with its configured engine.

    Whisper has one slot, whose service time is that of a batch, because it decodes one batch at a time.
    """
    stages: Mapping[str, SttSettings | LlmSettings | TtsSettings] = {
        "stt": settings.stt,
        "llm": settings.llm,
        "tts": settings.tts,
    }
    found = {}
    for name in STAGES:
        stage = stages[name]
        if isinstance(stage, LlmSettings) and stage.engine == "embedded":
            found[name] = stage.slots
        elif isinstance(stage, LlmSettings) and stage.engine == "vllm":
            found[name] = stage.vllm.places(on_gpu=stage.on_gpu)
        elif stage.engine == "emulated":
            found[name] = stage.emulation.resolve(name).slots  # type: ignore[arg-type]  # stt, llm or tts
        else:
            found[name] = stage.max_ongoing_requests if stage.engine == "openai_api" else 1
    return found
