"""The price file of `rejoinder plan --prices`: machine types with their resources and their price per hour."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, ValidationError

from cluster.config_file import read_yaml
from cluster.description.addresses import LabelValue
from rejoinder.core.capacity.sizing import NodeType
from rejoinder.core.errors import ConfigError
from rejoinder.core.settings.section import Section
from rejoinder.core.settings.settings import config_error


class PricedNode(Section):
    """A machine type of the price file."""

    per_hour: float = Field(gt=0, le=10_000, allow_inf_nan=False)
    """Price of one machine for one hour."""
    cores: float = Field(gt=0, le=10_000, allow_inf_nan=False)
    """CPU cores."""
    memory_gb: float = Field(gt=0, le=100_000, allow_inf_nan=False)
    """Memory in GB."""
    gpus: int = Field(0, ge=0, le=64)
    """Number of GPUs."""
    gpu: LabelValue = ""
    """Kind of GPU as Ray names it, for example L4. The launch description needs it."""


class PriceFile(Section):
    """Content of a price file."""

    currency: str = Field("USD", pattern=r"^[A-Z]{3}$")
    """Code of the currency of all prices, three capital letters."""
    source: str = Field("", max_length=200)
    """Where the prices come from, and of which day. It is printed."""
    nodes: dict[str, PricedNode] = Field(min_length=1, max_length=200)
    """Machine types by name."""

    def types(self, *, gpus: bool) -> tuple[NodeType, ...]:
        """Return the machine types with GPUs, or those without."""
        return tuple(
            NodeType(
                name,
                node.cores,
                node.memory_gb * 1000,
                node.gpus,
                per_hour=node.per_hour,
                gpu=node.gpu,
            )
            for name, node in self.nodes.items()
            if bool(node.gpus) is gpus
        )

    def named(self, name: str, option: str, *, gpus: bool) -> NodeType:
        """Return the machine type of a name.

        Args:
            name: Its name in the file.
            option: Option that the error names.
            gpus: Whether it must have GPUs, or must have none.

        Raises:
            ConfigError: The file has no such type.
        """
        found = {node.name: node for node in self.types(gpus=gpus)}
        if name not in found:
            kind = "with GPUs" if gpus else "without GPUs"
            raise ConfigError(
                f"the price file has no machine type {name!r} {kind}.",
                f"Use one of {', '.join(sorted(found)) or '(none)'}, or leave the option out for the cheapest.",
                field=option,
            )
        return found[name]


def read_prices(path: Path) -> PriceFile:
    """Return the price file at a path.

    Raises:
        ConfigError: It cannot be read, is not YAML or has an invalid field. The error names the field.
    """
    try:
        return PriceFile.model_validate(read_yaml(path))
    except ValidationError as error:
        raise config_error(error, f"--prices {path.name}") from None
