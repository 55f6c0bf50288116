"""What `rejoinder plan` writes: tables on the terminal, the configuration, the launch kit's files, JSON and a page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from rich.console import Console

from cluster.plan import Bill, StageEngine, configuration, node_groups, write
from cluster.plan_launch import description, launch_files
from cluster.rendering.rendered_file import write_files as write_rendered
from loadtest.capacity.calibration import Calibration
from loadtest.capacity.plan import Plan, PlanResources
from loadtest.capacity.turn_network import TurnNetwork
from loadtest.planning.cost import SensitivityRow, cost, p95_sensitivity, spare_sensitivity
from loadtest.planning.page import PlanPage, plan_page
from rejoinder.cli.load.app import write_json
from rejoinder.cli.plan import tables
from rejoinder.cli.plan.inputs import PlanInputs
from rejoinder.core.capacity.gpu_throughput import TOKENS_PER_AUDIO_S, CardEstimate, card_estimates
from rejoinder.core.capacity.providers import Choice, choose
from rejoinder.core.errors import ConfigError
from rejoinder.core.settings.section import is_loopback
from rejoinder.core.settings.serve_file import ServeFile

if TYPE_CHECKING:
    from rejoinder.cli.plan.command import PlanOptions


@dataclass(frozen=True, slots=True)
class PlannedFiles:
    """A plan, and what it was made from.

    Attributes:
        made: The plan.
        calibration: Its calibration.
        network: The network that it was planned with.
        resources: The user's choices of machines.
        base: The calibrated configuration.
        chosen: The guide's fastest usable provider by stage.
        inputs: Content of the files that the options name.
    """

    made: Plan
    calibration: Calibration
    network: TurnNetwork
    resources: PlanResources
    base: ServeFile
    chosen: Mapping[str, Choice]
    inputs: PlanInputs

    @property
    def currency(self) -> str:
        """Currency of the prices. Empty without a price file."""
        return self.inputs.prices.currency if self.inputs.prices else ""

    @property
    def tokens_per_s(self) -> float:
        """Tokens a second of all answers, from the seconds of speech that they have."""
        return self.made.turns_per_s * self.network.answer.audio_s * TOKENS_PER_AUDIO_S

    def sensitivities(self) -> tuple[list[SensitivityRow], list[SensitivityRow]]:
        """Return the cost of other numbers of spare nodes, and of other limits of p95. The latter is simulated."""
        p95 = p95_sensitivity(self.made, self.calibration, self.network, self.resources)
        return list(spare_sensitivity(self.made, self.resources)), list(p95)


def bill_of(made: Plan) -> Bill:
    """Return the plan's components and the nodes that they run on."""
    sized = {name: component.sized for name, component in made.components.items()}
    low = made.low
    return Bill(
        sized, made.groups, made.per_host, least=low.replicas if low else {}, least_nodes=low.nodes if low else ()
    )


def show(files: PlannedFiles, options: PlanOptions, console: Console) -> None:
    """Print the tables and notes of a plan, and write the page of `--html`.

    The sensitivity of the cost is computed if there are prices or a page.
    """
    made = files.made
    choices = {**files.chosen, "tts": choose("tts", options.tier)}
    for table in tables.tables(made, choices):
        console.print(table)
    if files.inputs.day:
        console.print(tables.day(files.inputs.day, made))
    cards = _cards(files, options)
    if cards:
        console.print(tables.gpus(cards, files.tokens_per_s, options.llm_billions, bits=options.llm_bits))
    notes = [*_notes(files, options), *tables.gpu_notes(cards, made, files.calibration)]
    if files.inputs.prices or options.html:
        spare, p95 = files.sensitivities()
        if files.inputs.prices:
            console.print(tables.costs(cost(made), [*spare, *p95], files.currency))
        if options.html:
            source = files.inputs.prices.source if files.inputs.prices else ""
            page = PlanPage(
                files.calibration.engines, notes, spare=spare, p95=p95, currency=files.currency, price_source=source
            )
            _write_text(options, plan_page(made, page))
            console.print(f"Written: {options.html}")
    for note in notes:
        console.print(note, style="dim", markup=False)


def _cards(files: PlannedFiles, options: PlanOptions) -> tuple[CardEstimate, ...]:
    if not options.llm_billions:
        return ()
    return card_estimates(files.tokens_per_s, options.llm_billions, options.llm_bits)


def _write_text(options: PlanOptions, text: str) -> None:
    assert options.html is not None  # the caller checks it
    try:
        options.html.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"{options.html} cannot be written ({error.strerror}).", "Name another file.", field="--html"
        ) from error


def _notes(files: PlannedFiles, options: PlanOptions) -> Iterator[str]:
    yield from tables.notes(files.calibration, files.made, published=options.engines == "published")
    settings = files.base.application.args
    if is_loopback(files.base.http_options.host):
        yield (
            "The calibrated server listened on the loopback address. The written configuration listens on every "
            "address, so callers need a key (REJOINDER_API_KEYS)."
        )
    if options.engines == "calibrated" and is_loopback(urlsplit(settings.llm.base_url).hostname or ""):
        yield f"llm.base_url {settings.llm.base_url} is a server on the same machine: every node needs its own."


def write_files(files: PlannedFiles, options: PlanOptions, console: Console) -> None:
    """Write the files of `--write`, `--launch` and `--json`.

    Raises:
        ConfigError: The site cannot launch the plan, or a file cannot be written.
    """
    made, bill = files.made, bill_of(files.made)
    engines = {
        stage: StageEngine(choice.provider.settings, choice.provider.source)
        for stage, choice in files.chosen.items()
        if options.engines == "published"
    }
    document = configuration(files.base, bill, engines)
    if options.write:
        lines = [f"{stage}: {engine.source}" for stage, engine in engines.items()]
        for path in write(options.write, document, node_groups(bill), lines):
            console.print(f"Written: {path}")
        if files.inputs.site is not None:
            rendered, remarks = launch_files(description(files.inputs.site, bill), document, options.write)
            write_rendered(rendered, options.write)
            for file in rendered:
                console.print(f"Written: {options.write / file.path}")
            for remark in remarks:
                console.print(f"Note: {remark}", markup=False)
    write_json(
        options.json_file,
        {"plan": made, "bill": bill, "cost": cost(made), "engines": files.chosen, "configuration": document},
    )
