"""One reading of the metrics of a whole system: the pages of all replicas, as text in Prometheus' format and as values.

`read_system` asks any host for the list of replicas and then every replica for its page, all at the same time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx2
from prometheus_client.parser import text_string_to_metric_families

from rejoinder.core.errors import BackendError, ConfigError

TIMEOUT_S = 3.0
"""Timeout of one request in seconds."""

Labels = frozenset[tuple[str, str]]
Values = Mapping[str, Mapping[Labels, float]]
"""Values of samples, by the name of the sample and by its labels."""


@dataclass(frozen=True, slots=True)
class ReplicaPage:
    """Metrics of one replica.

    Attributes:
        stage: Stage of the replica; "host" for a session host.
        values: Its samples.
    """

    stage: str
    values: Values


@dataclass(frozen=True, slots=True)
class SystemReading:
    """Metrics of all replicas at one time.

    Attributes:
        at_s: Monotonic time of the reading in seconds.
        replicas: The page of each replica that answered, by the name of the replica.
        silent: Names of the replicas that the host lists and that did not answer.
        places: Free places and places of all hosts, as `GET /v1/places` says.
    """

    at_s: float
    replicas: Mapping[str, ReplicaPage]
    silent: tuple[str, ...] = ()
    places: Mapping[str, int] = field(default_factory=dict)


def parse_page(text: str, stage: str) -> ReplicaPage:
    """Return the metrics page of a replica of `stage`, `text`, as values. Raise ValueError if it is not a page."""
    values: dict[str, dict[Labels, float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            values.setdefault(sample.name, {})[frozenset(sample.labels.items())] = float(sample.value)
    return ReplicaPage(stage, values)


async def read_system(url: str, api_key: str = "") -> SystemReading:
    """Return the metrics of every replica that a host lists.

    Args:
        url: HTTP address of the system.
        api_key: API key with the scope `metrics`; "" for none.

    Raises:
        ConfigError: `url` is not an http(s) address, or the key is missing or lacks the scope.
        BackendError: The system does not answer, or none of its replicas does.
    """
    if not url.startswith(("http://", "https://")):
        raise ConfigError(f"{url!r} is not an HTTP address.", "Write for example http://HOST:8000.", field="url")
    base = url.rstrip("/")
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    async with httpx2.AsyncClient(timeout=TIMEOUT_S) as client:
        targets = await _ask(client, f"{base}/metrics/targets", headers)
        places = await _ask(client, f"{base}/v1/places", headers)
        at_s = asyncio.get_running_loop().time()
        names = [target["labels"]["replica"] for target in targets]
        pages = dict(zip(names, await asyncio.gather(*(_page(client, target) for target in targets)), strict=True))
    found = {name: page for name, page in pages.items() if page}
    if not found:
        raise BackendError(
            f"{base} lists {len(targets)} replicas, and none of them answers.",
            "Run this on a machine that reaches the nodes' own addresses, as Prometheus does.",
        )
    return SystemReading(at_s, found, tuple(sorted(set(pages) - set(found))), places)


async def _ask(client: httpx2.AsyncClient, url: str, headers: Mapping[str, str]) -> Any:
    """Return the JSON answer to a GET. Raise ConfigError if a key is missing, BackendError if there is no answer."""
    try:
        response = await client.get(url, headers=headers)
        if response.status_code in (401, 403):
            remedy = "Put a key of the scope metrics into the environment variable REJOINDER_API_KEY."
            raise ConfigError(f"{url} answers {response.status_code}.", remedy, field="REJOINDER_API_KEY")
        return response.raise_for_status().json()
    except (httpx2.HTTPError, httpx2.InvalidURL, ValueError) as error:
        raise BackendError(f"{url} does not answer ({error}).", "Check that `rejoinder serve` runs there.") from None


async def _page(client: httpx2.AsyncClient, target: Mapping[str, Any]) -> ReplicaPage | None:
    """Return the page of one entry of `/metrics/targets`, None if the replica does not answer with one."""
    try:
        response = await client.get(f"http://{target['targets'][0]}/metrics")
        return parse_page(response.raise_for_status().text, target["labels"]["stage"])
    except (httpx2.HTTPError, ValueError):
        return None
