"""Settings of regions: this system's own name, and the addresses of the systems in all regions."""

from __future__ import annotations

from pydantic import Field, model_validator

from rejoinder.core.settings.section import Section, ServerUrl


class RegionSettings(Section):
    """Regions, each with a system of its own. Clients choose the nearest one and fail over to the next."""

    name: str = Field("", max_length=60, pattern=r"^[a-z0-9-]*$")
    """Name of the region of this system, for example eu-west. It is a label of all metrics. Empty: there are no
    regions.
    """
    entries: dict[str, ServerUrl] = Field(default_factory=dict)
    """Base URL of the system in each region by its name, this one included, as clients reach it:
    `eu-west: https://eu.example.com/v1`. `GET /v1/regions` lists them with their free places.
    """
    poll_timeout_s: float = Field(1.0, gt=0, le=10)
    """Seconds that a system of another region has to say how many free places it has."""

    @model_validator(mode="after")
    def _own_entry(self) -> RegionSettings:
        if self.entries and self.name not in self.entries:
            raise ValueError(f"entries has no address for this system's own region {self.name!r}")
        if any(not url for url in self.entries.values()):
            raise ValueError("an entry has no address: write https://HOST/v1")
        return self
