"""`rejoinder chat`: talk with a server through this machine's microphone and loudspeaker, or by typing."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

from rejoinder.cli.talk import API_KEY, Nearest, Url, nearest_region, waterfall

# At run time the command imports these modules itself, because the openai client takes a second to import.
if TYPE_CHECKING:
    from openai.resources.realtime.realtime import AsyncRealtimeConnection

    from loadtest.callers.live_caller import Command, LiveCaller, TurnOver
    from loadtest.callers.openai_caller import ServerAddress, ServerConnection
    from loadtest.callers.sound_card import SoundCard

Typed = Annotated[bool, typer.Option("--typed", help="Type your turns instead of speaking them. Ctrl-D ends the chat.")]
Mute = Annotated[
    bool, typer.Option("--mute", help="With --typed: only print the replies, for a machine without sound.")
]
HalfDuplex = Annotated[
    bool,
    typer.Option(
        "--half-duplex",
        help="Send silence while a reply plays. Use it without headphones; you cannot interrupt then.",
    ),
]


def chat(
    url: Url = "ws://127.0.0.1:8000/v1",
    typed: Typed = False,
    mute: Mute = False,
    *,
    half_duplex: HalfDuplex = False,
    nearest: Nearest = True,
) -> None:
    """Talk with a running server through this machine's microphone and loudspeaker, or by typing.

    After each turn it prints both transcripts and the latency by stage. A spoken turn is measured from the end of
    speech that the server detected to the first audible sample of the reply, with the output latency that the sound
    card reports. A typed turn is measured from the message to the first audible sample. Ctrl-C hangs up.

    Wear headphones: this client has no echo cancellation, so without them the reply would interrupt itself. The
    microphone and the loudspeaker need the extra `chat` and PortAudio. The environment variable REJOINDER_API_KEY, if
    set, is sent as the bearer token.

    Exit status: 0 after the chat, 2 after an error.
    """
    from loadtest.callers.openai_caller import ServerAddress

    console = Console(highlight=False, soft_wrap=True)
    server = ServerAddress(url, os.environ.get(API_KEY) or "none")
    if nearest:
        server = nearest_region(console, server)
    try:
        asyncio.run(_chat(console, server, typed=typed, mute=mute and typed, half_duplex=half_duplex))
    except KeyboardInterrupt:
        console.print("\nThe call has ended.", style="dim")


async def _chat(console: Console, server: ServerAddress, *, typed: bool, mute: bool, half_duplex: bool) -> None:
    from loadtest.callers.sound_card import open_sound_card

    card: AbstractContextManager[SoundCard | None] = nullcontext() if mute else open_sound_card(microphone=not typed)
    with card as sound:
        await hold(console, server, sound, read_line=sys.stdin.readline if typed else None, half_duplex=half_duplex)


async def hold(
    console: Console,
    server: ServerAddress,
    sound: SoundCard | None,
    *,
    read_line: Callable[[], str] | None = None,
    half_duplex: bool = False,
) -> None:
    """Hold a conversation until the connection is lost or the typed input ends.

    Args:
        console: Where transcripts and latencies are printed.
        server: Address of the server.
        sound: Microphone and loudspeaker. None to discard the audio of the replies.
        read_line: Blocking function that returns the next typed line, "" at the end. None to use the microphone.
        half_duplex: True to send silence while a reply plays.

    Raises:
        BackendError: The server cannot be reached or rejects the session.
        CallerError: The server rejects the API key.
        Overloaded: The server has no free session.
    """
    from loadtest.callers.live_caller import LiveCaller
    from loadtest.callers.openai_caller import connected

    async with connected(server) as connection:
        caller = LiveCaller(sound.output_latency_s if sound else 0.0)
        replied = asyncio.Event()
        receiving = asyncio.create_task(_receive(console, connection, caller, sound, replied=replied))
        if read_line is not None:
            speaking = asyncio.create_task(_type(console, connection, caller, read_line, sound=sound, replied=replied))
        else:
            assert sound is not None, "speech needs a sound card"
            console.print("Speak now. Ctrl-C hangs up.", style="bold")
            speaking = asyncio.create_task(_speak(connection, caller, sound, half_duplex))
        tasks = {receiving, speaking}
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(result, Exception):
                raise result


async def _speak(connection: ServerConnection, caller: LiveCaller, sound: SoundCard, half_duplex: bool) -> None:
    """Send the microphone's frames until cancelled.

    With `half_duplex`, send silence instead while a reply plays.
    """
    clock = asyncio.get_running_loop().time
    while True:
        frame = await sound.record()
        caller.captured(clock())
        if half_duplex and caller.playing(clock()):
            frame = bytes(len(frame))
        await connection.append(frame)


async def _type(
    console: Console,
    connection: ServerConnection,
    caller: LiveCaller,
    read_line: Callable[[], str],
    *,
    sound: SoundCard | None,
    replied: asyncio.Event,
) -> None:
    """Send each line from `read_line` as a turn and wait for its reply, until `read_line` returns "".

    `replied` is set by `_receive` when a response has ended.
    """
    clock = asyncio.get_running_loop().time

    async def ask(current: AsyncRealtimeConnection) -> None:
        await current.conversation.item.create(
            item={"type": "message", "role": "user", "content": [{"type": "input_text", "text": line.strip()}]}
        )
        await current.response.create()

    while True:
        console.print(Text("you        ", style="bold"), end="")
        line = await asyncio.to_thread(read_line)
        if not line:
            console.print()
            return
        if not line.strip():
            continue
        replied.clear()
        await _execute(console, connection, sound, caller.typed(clock()))
        await connection.request(ask)
        await replied.wait()


async def _receive(
    console: Console,
    connection: ServerConnection,
    caller: LiveCaller,
    sound: SoundCard | None,
    *,
    replied: asyncio.Event,
) -> None:
    """Process the server's events (play audio, print transcripts) until the connection is lost.

    Set `replied` after each response.
    """
    from websockets.exceptions import ConnectionClosed

    from loadtest.callers.live_caller import TurnOver

    try:
        async for event, arrived in connection.events(caller):
            commands = caller.take(event, arrived)
            await _execute(console, connection, sound, commands)
            if any(isinstance(command, TurnOver) for command in commands):
                replied.set()
    except ConnectionClosed as closed:
        console.print(f"! the connection was lost ({closed}).", style="yellow", markup=False)


async def _execute(
    console: Console, connection: ServerConnection, sound: SoundCard | None, commands: Sequence[Command]
) -> None:
    from loadtest.callers.live_caller import Fault, Heard, Play, ReplyText, StopPlayback, TurnOver
    from loadtest.callers.openai_caller import truncate
    from loadtest.callers.scripted_caller import Truncate

    for command in commands:
        match command:
            case Play(pcm=pcm):
                if sound:
                    sound.play(pcm)
            case StopPlayback():
                if sound:
                    sound.stop()
            case Truncate():
                await truncate(connection, command)
            case Heard(text=text):
                console.print(Text("you        ", style="bold") + Text(text))
            case ReplyText():
                pass  # the whole reply is printed when its turn is over, below the person's transcript
            case Fault(text=text):
                console.print(f"! {text}", style="yellow", markup=False)
            case TurnOver():
                _show(console, command)


def _show(console: Console, turn: TurnOver) -> None:
    """Print the reply of a turn and its latency."""
    record = turn.record
    ending = " (interrupted)" if record.interrupted else "" if record.ok else f" ({record.outcome})"
    console.print(Text("rejoinder  ", style="bold") + Text(f"{record.answered or '-'}{ending}"))
    if record.voice_to_voice_ms is not None:
        console.print(waterfall(record.stages_ms or {}, record.voice_to_voice_ms))
    elif turn.first_audio_ms is not None:
        console.print(f"  first audio {turn.first_audio_ms:.0f} ms after the message", style="dim")
