"""Handshakes of a running system whose hosts get full: what a further attempt costs, and how many callers are refused.

    python -m benchmarks.handshakes cost http://HOST:8000
    python -m benchmarks.handshakes refusals http://HOST:8000 http://HOST2:8000 --places 60

Both need a system without other callers and with `admission.enabled: false`, so that only `host.max_sessions` limits
the calls. `cost` takes all places. REJOINDER_API_KEY has the key, if one is needed.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import httpx2
import websockets
from prometheus_client.parser import text_string_to_metric_families
from websockets.exceptions import InvalidStatus

REFUSALS = "rejoinder_sessions_refused_total"
TIMEOUT_S = 10.0
SETTLE_S = 0.1
"""Pause in seconds after a call, in which the host frees its place."""


@dataclass(frozen=True, slots=True)
class Handshake:
    """One handshake of a caller.

    Attributes:
        admitted: Whether a host accepted it.
        attempts: Number of hosts that were asked, counted at the hosts.
        ms: Time in milliseconds from the start of the TCP connection to the answer.
    """

    admitted: bool
    attempts: int
    ms: float


def key_headers() -> dict[str, str]:
    """Return the HTTP headers with the key in REJOINDER_API_KEY, {} without one."""
    key = os.environ.get("REJOINDER_API_KEY")
    return {"Authorization": f"Bearer {key}"} if key else {}


async def connect(url: str) -> tuple[websockets.ClientConnection | None, float]:
    """Ask for a place. Return the connection, None if the system is full, and the time it took in ms."""
    target = url.replace("http", "ws", 1) + "/v1/realtime?model=rejoinder"
    began = time.perf_counter()
    try:
        socket = await websockets.connect(target, additional_headers=key_headers(), open_timeout=TIMEOUT_S, proxy=None)
    except InvalidStatus as refused:
        if refused.response.status_code != 503:
            raise
        return None, 1000 * (time.perf_counter() - began)
    return socket, 1000 * (time.perf_counter() - began)


async def host_targets(client: httpx2.AsyncClient, url: str) -> list[str]:
    """Return HOST:PORT of the metrics of each session host."""
    answer = await client.get(f"{url}/metrics/targets")
    entries = answer.raise_for_status().json()
    return [entry["targets"][0] for entry in entries if entry["labels"]["stage"] == "host"]


async def refusals(client: httpx2.AsyncClient, targets: Sequence[str]) -> int:
    """Return the number of handshakes that the hosts with these metrics (HOST:PORT) have refused so far."""
    pages = await asyncio.gather(*(client.get(f"http://{target}/metrics") for target in targets))
    return sum(
        round(sample.value)
        for page in pages
        for family in text_string_to_metric_families(page.text)
        for sample in family.samples
        if sample.name == REFUSALS
    )


async def measure_cost(url: str, repeats: int, free: int) -> list[Handshake]:
    """Measure handshakes with fewer and fewer free places, down to none, and return all of them.

    Args:
        url: Base URL of an entry.
        repeats: Number of handshakes for each number of free places. They are made one after another. Admitted calls
            end at once, so that the number of free places stays the same.
        free: Number of free places at the beginning. Calls that stay take all others.
    """
    found: list[Handshake] = []
    async with httpx2.AsyncClient(timeout=TIMEOUT_S, headers=key_headers()) as client, AsyncExitStack() as held:
        targets = await host_targets(client, url)
        places = (await client.get(f"{url}/v1/places")).raise_for_status().json()
        for _ in range(places["free"] - free):
            socket, _ = await connect(url)
            if socket:
                held.push_async_callback(socket.close)
        while True:
            for _ in range(repeats):
                before = await refusals(client, targets)
                socket, ms = await connect(url)
                refused = await refusals(client, targets) - before
                found.append(Handshake(socket is not None, refused + (socket is not None), ms))
                if socket:
                    await socket.close()
                    await asyncio.sleep(SETTLE_S)
            socket, _ = await connect(url)
            if socket is None:
                return found
            held.push_async_callback(socket.close)


def cost_table(found: Sequence[Handshake]) -> Iterator[str]:
    """Yield a table of the times of handshakes by the number of their attempts. A group has ten handshakes at least."""
    yield "| answer | attempts | handshakes | p10 ms | p50 ms | p90 ms | p50 above one attempt, per further attempt |"
    yield "|---|---|---|---|---|---|---|"
    groups: dict[tuple[bool, int], list[float]] = {}
    for handshake in found:
        groups.setdefault((not handshake.admitted, handshake.attempts), []).append(handshake.ms)
    first_ms = statistics.median(groups.get((False, 1), [0.0]))
    for (refused, attempts), times in sorted(groups.items()):
        if len(times) < 10:
            continue
        cuts = statistics.quantiles(times, n=10)
        median = statistics.median(times)
        further = f"{(median - first_ms) / (attempts - 1):.2f} ms" if attempts > 1 else ""
        answer = "503" if refused else "admitted"
        yield f"| {answer} | {attempts} | {len(times)} | {cuts[0]:.1f} | {median:.1f} | {cuts[-1]:.1f} | {further} |"


@dataclass(slots=True)
class PoolComparison:
    """Callers of several entries, compared with one pool of the same places for the same callers.

    Attributes:
        places: Places of all hosts together.
        callers: Callers in the measured time.
        refused: Callers that were refused.
        pool_refused: Callers that the pool would have refused.
        failed: Callers that got neither a place nor status 503.
        late_s: Largest delay in seconds of a caller against the schedule. After a delay of more than a tenth of a
            second the run does not count, because this process or the machine was too slow.
        live: Calls now.
        pooled: Calls in the pool now.
    """

    places: int
    callers: int = 0
    refused: int = 0
    pool_refused: int = 0
    failed: int = 0
    late_s: float = 0.0
    live: int = 0
    pooled: int = 0
    measuring: bool = False
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def call(self, url: str, call_s: float) -> None:
        """Let a caller ask for a place and keep it for `call_s` seconds."""
        self.callers += self.measuring
        for work in (self._pool(call_s), self._caller(url, call_s)):
            task = asyncio.create_task(work)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pool(self, call_s: float) -> None:
        if self.pooled >= self.places:
            self.pool_refused += self.measuring
            return
        self.pooled += 1
        await asyncio.sleep(call_s)
        self.pooled -= 1

    async def _caller(self, url: str, call_s: float) -> None:
        measured, began = self.measuring, time.monotonic()
        try:
            socket, _ = await connect(url)
            if socket is None:
                self.refused += measured
                return
            self.live += 1
            # The call ends when it would end in the pool, so that both free their places at the same time.
            await asyncio.sleep(call_s - (time.monotonic() - began))
            self.live -= 1
            await socket.close()
        except (OSError, TimeoutError, websockets.WebSocketException):
            self.failed += measured

    async def end(self) -> None:
        """Wait until all calls have ended."""
        while self._tasks:
            await asyncio.wait(self._tasks)


async def measure_refusals(
    urls: Sequence[str], *, places: int, load: float, call_s: float, warm_up_s: float, measured_s: float, seed: int
) -> PoolComparison:
    """Let silent callers come at random (Poisson) to random entries, and return how many were refused.

    Args:
        urls: Base URLs of the entries.
        places: Places of all hosts together.
        load: Offered load as a share of the places.
        call_s: Mean length of a call in seconds, exponentially distributed.
        warm_up_s: Seconds before the measurement.
        measured_s: Seconds of the measurement.
        seed: Seed of the random numbers.
    """
    rng, found = random.Random(seed), PoolComparison(places)
    rate, due = load * places / call_s, time.monotonic()
    begin = due + warm_up_s
    while due < begin + measured_s:
        due += rng.expovariate(rate)
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        found.late_s = max(found.late_s, time.monotonic() - due)
        found.measuring = due >= begin
        found.call(rng.choice(urls), rng.expovariate(1 / call_s))
    await found.end()
    return found


def refusals_line(found: PoolComparison) -> str:
    """Return the result as one line of text."""
    shares = [100 * count / found.callers for count in (found.refused, found.pool_refused)]
    return (
        f"{found.callers} callers, {found.refused} refused ({shares[0]:.2f}%), {found.pool_refused} by one pool "
        f"({shares[1]:.2f}%), difference {shares[0] - shares[1]:+.2f} points, {found.failed} failed, "
        f"at most {1000 * found.late_s:.0f} ms late"
    )


def main() -> None:
    """Measure what the command line names, and print it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.handshakes", description=__doc__)
    studies = parser.add_subparsers(dest="study", required=True)
    cost = studies.add_parser("cost", help="time of a handshake by the number of hosts that were asked")
    cost.add_argument("urls", metavar="URL", nargs=1, help="base URL of an entry")
    cost.add_argument("--repeats", type=int, default=20, help="handshakes for each number of free places")
    cost.add_argument("--free", type=int, default=4, help="free places at the beginning")
    compare = studies.add_parser("refusals", help="refused callers, compared with one pool")
    compare.add_argument("urls", metavar="URL", nargs="+", help="base URLs of the entries")
    compare.add_argument("--places", type=int, required=True, help="places of all hosts together")
    compare.add_argument("--load", type=float, default=0.9, help="offered load as a share of the places")
    compare.add_argument("--call-s", type=float, default=10.0, help="mean length of a call in seconds")
    compare.add_argument("--warm-up-s", type=float, default=30.0, help="seconds before the measurement")
    compare.add_argument("--measured-s", type=float, default=180.0, help="seconds of the measurement")
    compare.add_argument("--seed", type=int, default=1, help="seed of the random numbers")
    options = vars(parser.parse_args())
    study, urls = options.pop("study"), options.pop("urls")
    if study == "cost":
        for line in cost_table(asyncio.run(measure_cost(urls[0], **options))):
            print(line)
    else:
        print(refusals_line(asyncio.run(measure_refusals(urls, **options))))


if __name__ == "__main__":
    main()
