"""`rejoinder plan`: what to buy for so many conversations, from a calibration of a running server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from rejoinder.cli.plan.grouped_options import grouped
from rejoinder.core.capacity.budgets import Tier
from rejoinder.core.capacity.providers import Choice, choose
from rejoinder.core.capacity.sizing import NodeType
from rejoinder.core.errors import ConfigError
from rejoinder.core.settings.serve_file import ServeFile
from rejoinder.core.settings.settings import LlmSettings, Settings, SttSettings, TtsSettings

# At run time only the command imports them: simulation and statistics take a second to load.
if TYPE_CHECKING:
    from loadtest.capacity.calibration import Calibration
    from loadtest.capacity.plan import Plan
    from loadtest.capacity.turn_network import TurnNetwork

STAGES = ("stt", "llm", "tts")
PUBLISHED_SLOTS = 16
"""Requests that a replica passes on to a published engine at once: nobody publishes how many it takes."""


@dataclass(frozen=True, slots=True)
class PlanOptions:
    """What `rejoinder plan` asks."""

    sessions: Annotated[int, typer.Option(min=1, help="Conversations at once, on average.")]
    tier: Annotated[Tier, typer.Option(help="The latency guide's tier: its total holds at the median.")] = Tier.GOOD
    p95_ms: Annotated[float, typer.Option(min=1, help="What 95% of the turns stay within.")] = 1200.0
    spare: Annotated[int, typer.Option(min=0, help="Replicas and nodes that may be away: 1 is N+1.")] = 1
    refused: Annotated[float, typer.Option(min=1e-6, max=0.5, help="Share of calls that may find no place.")] = 0.005
    calibration: Annotated[Path | None, typer.Option(help="A file that --save wrote.")] = None
    url: Annotated[str, typer.Option(help="Calibrate this server: ws://HOST:PORT/v1.")] = ""
    knee: Annotated[int, typer.Option(help="Sessions that the server carries, roughly: 20, 40 and 60% are run.")] = 0
    for_s: Annotated[float, typer.Option("--for", min=10, help="Seconds of each calibration run.")] = 60.0
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE|@FILE", help="How calibration runs: see load run.")
    ] = None
    config: Annotated[Path | None, typer.Option(help="The server's ray_config.yaml; without it, the defaults.")] = None
    save: Annotated[Path | None, typer.Option(help="Keep the calibration.")] = None
    engines: Annotated[
        str, typer.Option(help="calibrated, or published: the guide's fastest that a configuration of ours can name.")
    ] = "calibrated"
    gpus: Annotated[
        str, typer.Option(metavar="STAGE=SHARE,...", help="GPUs a replica, for example stt=0.25,llm=1.")
    ] = ""
    cpu_node: Annotated[str, typer.Option(metavar="CORES:GB", help="The machine without a GPU.")] = "16:64"
    gpu_node: Annotated[str, typer.Option(metavar="CORES:GB:GPUS", help="The machine with them.")] = "16:64:1"
    per_host: Annotated[int, typer.Option(min=0, help="Most sessions of a host; 0: what its core carries.")] = 0
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the plan; keys: loadtest/capacity/plan.py.")
    ] = None
    write: Annotated[Path | None, typer.Option(help="Folder for ray_config.yaml and node_groups.yaml.")] = None


@grouped(PlanOptions)
def plan(options: PlanOptions) -> None:
    """Predict a deployment from its calibration, and turn a target around into replicas, nodes and network.

    Every figure says what it is: measured, predicted (within the calibrated range), extrapolated (outside of it),
    published (by a provider) or given. The written configuration is ready for `rejoinder serve` and `serve deploy`.
    """
    from rejoinder.cli.load.app import need_extra

    need_extra()
    from cluster.launch import read_config
    from loadtest.capacity.inversion import CapacityTarget
    from loadtest.capacity.plan import PlanResources
    from loadtest.capacity.plan import plan as make
    from rejoinder.cli.plan import tables as plan_tables
    from rejoinder.cli.plan.sources import calibrated, published

    # What is mistyped is refused before minutes of calibration and simulation.
    resources = PlanResources(
        shares(options.gpus), options.per_host or None, engines_calibrated=options.engines == "calibrated"
    )
    machines(options)
    base = read_config(options.config)
    found = calibrated(options, base.application.args)
    network = _network(found)
    chosen = {stage: choose(stage, options.tier, reachable=True) for stage in ("stt", "llm")}
    if options.engines == "published":
        network = published(network, chosen, PUBLISHED_SLOTS)
    elif options.engines != "calibrated":
        raise ConfigError(f"{options.engines!r} is neither.", "Use calibrated or published.", field="--engines")
    target = CapacityTarget(
        options.sessions, tier=options.tier, p95_ms=options.p95_ms, spare=options.spare, refused=options.refused
    )
    made = make(found, network, target, resources)
    console = Console(highlight=False)
    shown = {**chosen, "tts": choose("tts", options.tier)}
    for table in plan_tables.tables(made, bill_of(options, made), shown):
        console.print(table)
    for note in plan_tables.notes(found, made, published=options.engines == "published"):
        console.print(note, style="dim", markup=False)
    _write(options, base=base, made=made, chosen=chosen, console=console)


def _network(found: Calibration) -> TurnNetwork:
    """Fitted; an emulated language model's replies are known exactly."""
    from deployments.engines.emulated import WORDS
    from loadtest.capacity.emulated_network import answer
    from loadtest.capacity.network_fit import fit
    from rejoinder.core.settings.settings import parse_settings

    settings = parse_settings(found.settings)
    known = settings.llm.engine == settings.tts.engine == "emulated"
    return fit(found, answer(settings, WORDS) if known else None)


def shares(text: str) -> dict[str, float]:
    """ "stt=0.25,llm=1" as a mapping; raises ConfigError for another stage or no number."""
    found = {}
    for part in filter(None, text.split(",")):
        stage, _, share = part.partition("=")
        try:
            found[stage.strip()] = float(share)
        except ValueError:
            raise ConfigError(f"{part!r} is no STAGE=SHARE.", "For example stt=0.25.", field="--gpus") from None
    unknown = sorted(set(found) - set(STAGES))
    if unknown or any(share < 0 for share in found.values()):
        raise ConfigError(f"{text!r} names no stage or no share.", f"Stages: {', '.join(STAGES)}.", field="--gpus")
    return found


def node_type(text: str, option: str) -> NodeType:
    """ "16:64:1" as a machine of 16 cores, 64 GB and one GPU."""
    try:
        cores, memory_gb, *gpus = (float(part) for part in text.split(":"))
        found = NodeType(text, cores, memory_gb * 1000, *gpus)
    except (ValueError, TypeError):
        found = NodeType(text, 0, 0)
    if min(found.cores, found.memory_mb) <= 0 or found.gpus < 0:
        raise ConfigError(f"{text!r} is no machine.", "Write CORES:GB or CORES:GB:GPUS.", field=option)
    return found


def slots(settings: Settings) -> dict[str, int]:
    """How many requests one replica of each stage serves at once, by its engine.

    Whisper decodes one batch at a time, and nobody joins it: one slot, whose service is the batch's.
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
            found[name] = stage.vllm.places(on_card=stage.on_card)
        elif stage.engine == "emulated":
            found[name] = stage.emulation.resolve(name).slots  # type: ignore[arg-type]  # the three are its names
        else:
            found[name] = stage.max_ongoing_requests if stage.engine == "openai_api" else 1
    return found


def _write(
    options: PlanOptions, base: ServeFile, made: Plan, chosen: Mapping[str, Choice], *, console: Console
) -> None:
    from cluster.plan import StageEngine, configuration, node_groups, write
    from rejoinder.cli.load.app import write_json

    bill = bill_of(options, made)
    published = options.engines == "published"
    engines = {
        stage: StageEngine(choice.provider.settings, choice.provider.source)
        for stage, choice in chosen.items()
        if published
    }
    document = configuration(base, bill, engines)
    if options.write:
        lines = [f"{stage}: {engine.source}" for stage, engine in engines.items()]
        for path in write(options.write, document, node_groups(bill), lines):
            console.print(f"Written: {path}")
    write_json(options.json_file, {"plan": made, "bill": bill, "engines": chosen, "configuration": document})


def bill_of(options: PlanOptions, made: Plan) -> Any:
    """The plan's components on the machines that the options name."""
    from cluster.plan import bill

    components = {name: component.sized for name, component in made.components.items()}
    return bill(components, *machines(options), options.spare, per_host=made.per_host)


def machines(options: PlanOptions) -> tuple[NodeType, NodeType]:
    """Without and with GPUs."""
    return node_type(options.cpu_node, "--cpu-node"), node_type(options.gpu_node, "--gpu-node")
