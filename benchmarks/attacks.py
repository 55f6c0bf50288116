"""Latency of other callers while a client attacks a running system: p95 with each attack, compared with p95 without.

    rejoinder serve --emulate guide-500 CONFIG.yaml
    python -m benchmarks.attacks ws://127.0.0.1:8000/v1

CONFIG.yaml needs `host.max_sessions: 400` for the attack `unread`, and `admission.enabled: false`. The attack runs in a
process of its own at the lowest priority, so that it does not take the server's CPU on the same machine.
REJOINDER_API_KEY has the key, if one is needed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from typing import Any

import websockets
from websockets.exceptions import WebSocketException
from websockets.frames import Frame, Opcode

Socket = websockets.ClientConnection

ECHO_S = 0.05
"""Seconds between two events of a caller whose answers are measured."""
TURN_S = 0.5
"""Seconds between the end of an answer and the next turn of a caller."""
GREETING = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hello."}]}


def key_headers() -> dict[str, str]:
    """Return the HTTP headers with the key in REJOINDER_API_KEY, {} without one."""
    key = os.environ.get("REJOINDER_API_KEY")
    return {"Authorization": f"Bearer {key}"} if key else {}


async def open_call(url: str) -> Socket:
    """Open a session at a base URL (ws://HOST:PORT/v1) and return its connection."""
    return await websockets.connect(
        f"{url}/realtime?model=rejoinder", additional_headers=key_headers(), max_size=None, proxy=None
    )


def _item(text: str) -> str:
    content = [{"type": "input_text", "text": text}]
    return json.dumps(
        {"type": "conversation.item.create", "item": {"type": "message", "role": "system", "content": content}}
    )


def _update(**session: Any) -> str:
    return json.dumps({"type": "session.update", "session": {"type": "realtime", **session}})


async def _drain(socket: Socket) -> None:
    async for _ in socket:
        pass


async def _send_all(socket: Socket, messages: Sequence[str]) -> None:
    """Send messages as fast as the server takes them, and read the answers meanwhile."""
    reading = asyncio.create_task(_drain(socket))
    try:
        for message in messages:
            await socket.send(message)
    finally:
        reading.cancel()


async def items(socket: Socket) -> None:
    """Create 20,000 items."""
    await _send_all(socket, [_item("x" * 50)] * 20_000)


async def instructions(socket: Socket) -> None:
    """Send instructions of 5 MB."""
    await _send_all(socket, [_update(instructions="x" * 5_000_000)])


async def tools(socket: Socket) -> None:
    """Send 1,000 tools, fifty times."""
    await _send_all(
        socket, [_update(tools=[{"type": "function", "name": f"f{number}"} for number in range(1000)])] * 50
    )


async def responses(socket: Socket) -> None:
    """Ask for 300 responses in a row."""
    await _send_all(socket, [json.dumps({"type": "response.create"})] * 300)


async def fragments(socket: Socket) -> None:
    """Send a message in frames of one byte, at full speed."""
    transport = socket.transport
    head, rest = Frame(Opcode.TEXT, b"{", fin=False), Frame(Opcode.CONT, b" ", fin=False)
    transport.write(head.serialize(mask=True))
    piece = b"".join(rest.serialize(mask=True) for _ in range(1000))
    while not transport.is_closing():
        if transport.get_write_buffer_size() < 1_000_000:
            transport.write(piece)
        await asyncio.sleep(0.001)


async def message(socket: Socket) -> None:
    """Send a message of 10 MB with empty arrays."""
    await _send_all(socket, [_update(x=json.loads("[" + "[]," * 3_000_000 + "[]]"))])


async def unread(socket: Socket) -> None:
    """Send updates and never read an answer."""
    socket.transport.pause_reading()
    while not socket.transport.is_closing():
        if socket.transport.get_write_buffer_size() < 1_000_000:
            payload = _update(instructions="x" * 90_000).encode()
            socket.transport.write(Frame(Opcode.TEXT, payload).serialize(mask=True))
        await asyncio.sleep(0.05)


async def pings(socket: Socket) -> None:
    """Send pings at full speed."""
    flood = b"".join(Frame(Opcode.PING, b"x").serialize(mask=True) for _ in range(1000))
    while not socket.transport.is_closing():
        if socket.transport.get_write_buffer_size() < 1_000_000:
            socket.transport.write(flood)
        await asyncio.sleep(0.001)


@dataclass(frozen=True, slots=True)
class Attack:
    """One kind of attack.

    Attributes:
        run: What one attacking connection does until it is refused.
        connections: Number of concurrent connections, each of which comes back when it is refused.
    """

    run: Callable[[Socket], Awaitable[None]]
    connections: int = 1


ATTACKS = {
    attack.run.__name__: attack
    for attack in (
        *(Attack(items), Attack(instructions), Attack(tools), Attack(responses), Attack(fragments), Attack(message)),
        *(Attack(unread, 200), Attack(pings)),
    )
}


async def attack(url: str, name: str, seconds: float) -> None:
    """Attack a server for some seconds. A connection that was refused comes back after a second."""

    async def again_and_again() -> None:
        while True:
            with suppress(OSError, WebSocketException):
                socket = await open_call(url)
                try:
                    await ATTACKS[name].run(socket)
                finally:
                    socket.transport.abort()
            await asyncio.sleep(1.0)

    with suppress(TimeoutError):
        async with asyncio.timeout(seconds), asyncio.TaskGroup() as group:
            for _ in range(ATTACKS[name].connections):
                group.create_task(again_and_again())


@dataclass(frozen=True, slots=True)
class Latencies:
    """What the other callers waited for, in milliseconds.

    Attributes:
        turns: Time from the request of an answer to its first audio.
        echoes: Time from an event to its answer, which no engine takes part in.
        lost: Number of callers whose connection ended.
    """

    turns: tuple[float, ...]
    echoes: tuple[float, ...]
    lost: int = 0


async def measure(url: str, callers: int, seconds: float, attacker: Sequence[str] = ()) -> Latencies:
    """Hold conversations by text for some seconds, and return their latencies.

    Args:
        url: Base URL of the server.
        callers: Number of conversations.
        seconds: Length of the measurement.
        attacker: Command of the attacker. It is started after the conversations and before the measurement, and killed
            afterwards.
    """
    turns: list[float] = []
    echoes: list[float] = []
    async with AsyncExitStack() as stack:
        sockets = [await stack.enter_async_context(await open_call(url)) for _ in range(callers)]
        if attacker:
            process = await asyncio.create_subprocess_exec(*attacker)
            stack.push_async_callback(process.wait)
            stack.callback(process.kill)
            await asyncio.sleep(2.0)
        calls = [asyncio.create_task(_call(socket, turns, echoes)) for socket in sockets]
        _, running = await asyncio.wait(calls, timeout=seconds)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        return Latencies(tuple(turns), tuple(echoes), callers - len(running))


async def _call(socket: Socket, turns: list[float], echoes: list[float]) -> None:
    """Take turns by text and send events in between. Append the latencies in ms."""
    asked: dict[str, float] = {}
    answered = asyncio.Event()

    async def read() -> None:
        heard = False
        async for text in socket:
            event, now = json.loads(text), time.perf_counter()
            if event["type"] == "error" and (at := asked.pop(event["error"].get("event_id") or "", None)):
                echoes.append(1000 * (now - at))
            elif event["type"] == "response.output_audio.delta" and not heard:
                heard = True
                turns.append(1000 * (now - asked.pop("turn")))
            elif event["type"] == "response.done":
                heard = False
                answered.set()
        raise ConnectionError("the server closed the connection")

    async def take_turns() -> None:
        while True:
            await socket.send(json.dumps({"type": "conversation.item.create", "item": GREETING}))
            asked["turn"] = time.perf_counter()
            answered.clear()
            await socket.send(json.dumps({"type": "response.create"}))
            await answered.wait()
            await asyncio.sleep(TURN_S)

    async def send_events() -> None:
        for number in range(10**9):
            name = f"echo{number}"
            asked[name] = time.perf_counter()
            await socket.send(json.dumps({"type": "conversation.item.delete", "item_id": name, "event_id": name}))
            await asyncio.sleep(ECHO_S)

    async with asyncio.TaskGroup() as group:
        for work in (read, take_turns, send_events):
            group.create_task(work())


def percentile(values: Sequence[float], share: float) -> float:
    """Return a percentile by nearest rank, NaN of no values."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else math.nan


def row(name: str, found: Latencies, calm: Latencies) -> str:
    """Return a table row: p95 of turns and of echoes in ms, each with its ratio to the latencies without an attack."""
    cells = [name, str(len(found.turns)), str(found.lost)]
    for values, usual in ((found.turns, calm.turns), (found.echoes, calm.echoes)):
        p95 = percentile(values, 0.95)
        cells += [f"{p95:.1f}", f"{p95 / percentile(usual, 0.95):.2f}"]
    return f"| {' | '.join(cells)} |"


def table(url: str, names: Sequence[str], callers: int, seconds: float) -> Iterator[str]:
    """Yield the table's lines while the attacks run, one after another."""
    yield "| attack | turns | calls lost | turn p95 ms | ratio | echo p95 ms | ratio |"
    yield "|---|---|---|---|---|---|---|"
    calm = asyncio.run(measure(url, callers, seconds))
    yield row("none", calm, calm)
    for name in names:
        command = [sys.executable, "-m", "benchmarks.attacks", url, "--attack", name, "--seconds", str(seconds + 3)]
        yield row(name, asyncio.run(measure(url, callers, seconds, ["nice", "-n", "19", *command])), calm)
        time.sleep(2)


def main() -> None:
    """Print the table, or be the attacker of one row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", help="OpenAI base URL of the server, ws://HOST:PORT/v1")
    parser.add_argument("--only", nargs="*", choices=ATTACKS, default=list(ATTACKS), help="attacks to run")
    parser.add_argument("--callers", type=int, default=6, help="number of the other callers")
    parser.add_argument("--seconds", type=float, default=12.0, help="length of each row")
    parser.add_argument("--attack", choices=ATTACKS, help="only attack, and measure nothing")
    given = parser.parse_args()
    if given.attack:
        asyncio.run(attack(given.url, given.attack, given.seconds))
        return
    for line in table(given.url, given.only, given.callers, given.seconds):
        print(line, flush=True)


if __name__ == "__main__":
    main()
