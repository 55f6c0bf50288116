"""`rejoinder demo`: a conversation with real models, and a check that every turn was answered and transcribed."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import httpx2
import typer
from rich.console import Console

from cluster.environment import free_port
from loadtest.results.turn_record import TurnRecord
from loadtest.scenario.clips import write_wave
from rejoinder.cli.talk import talk
from rejoinder.core.audio.pcm import WIRE_RATE
from rejoinder.core.errors import BackendError
from rejoinder.core.settings.settings import ModelStoreSettings, TtsSettings
from rejoinder.store import ModelStore, open_store
from rejoinder.store.human_clips import moonshine_clips

MAX_WER = 0.10
"""Highest word error rate of a turn that counts as transcribed correctly."""
START_TIMEOUT_S = 600.0
INTERRUPT_AFTER_S = 1.5
"""Seconds of a reply after which the interruption starts."""
FAILED = 1
"""Exit status if a turn was not answered or not transcribed correctly."""


@dataclass(frozen=True, slots=True)
class DemoLine:
    """One line of the caller.

    Attributes:
        name: Name of its WAV file, without the suffix.
        text: Text for the Piper voice; "" for a recording.
        recording: Name of a human clip (`HumanClip.name`); "" for synthetic speech.
    """

    name: str
    text: str = ""
    recording: str = ""


QUESTIONS = (
    DemoLine("1-synthetic-capital", "What is the capital of France?"),
    DemoLine("2-human-dickens", recording="two_cities.wav@20.9"),
    DemoLine("3-synthetic-history", "Tell me about the history of the city of London."),
    DemoLine("4-synthetic-interruption", "Stop please. What is the capital of Italy?"),
)
INTERRUPTION = 4
"""Number of the question that interrupts the reply before it, counted from 1."""


def demo(
    once: Annotated[bool, typer.Option("--once", help="Stop the server after the conversation.")] = False,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", help="File for the turns as JSON; keys: see rejoinder talk."),
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option("--save", metavar="DIR", help="Folder for the recordings. Default: a new temporary one."),
    ] = None,
    port: Annotated[int, typer.Option(help="HTTP port of the server. If it is in use, a free one is taken.")] = 8000,
) -> None:
    """Start the server, have a conversation of four turns with it, and print the latency of each turn by stage.

    The last turn interrupts the third reply. Afterwards the server keeps running until Ctrl-C, unless --once is
    given.

    Exit status: 0 if every turn was answered and transcribed with a word error rate of at most 10%, 1 if not, 2 after
    an error.
    """
    console = Console(highlight=False)
    folder = folder or Path(tempfile.mkdtemp(prefix="rejoinder-demo-"))
    folder.mkdir(parents=True, exist_ok=True)
    clips = make_clips(folder, open_store(ModelStoreSettings()))
    with _server(port) as (server, url):
        console.rule("The conversation")
        console.print("The Piper voice speaks the synthetic clips. The human clip is a recording.", style="dim")
        records = _converse(clips, url, folder)
        if json_file:
            json_file.write_text(json.dumps([asdict(record) for record in records], indent=1) + "\n", encoding="utf-8")
        faults = [fault for record in records for fault in faults_of(record)]
        console.rule("Verdict")
        for fault in faults:
            console.print(f"! {fault}", style="bold red", markup=False)
        if not faults:
            console.print("Every turn was answered, and transcribed with at most 10% word errors.", style="bold green")
        console.print(f"Recordings of the clips, the replies and the whole conversation: {folder}")
        if not once:
            console.print(
                f"The server keeps running. Talk to it:  rejoinder talk YOUR.wav --url {url}\nCtrl-C stops it."
            )
            server.wait()
    if faults:
        raise typer.Exit(FAILED)


def make_clips(folder: Path, store: ModelStore, questions: Sequence[DemoLine] = QUESTIONS) -> list[Path]:
    """Write each question as a WAV file, and its text as a .txt file of the same name. Return the WAV paths.

    Args:
        folder: Folder for the files.
        store: Store with the voice and the recordings.
        questions: What to write.
    """
    from deployments.engines.piper import PiperVoice

    voice = PiperVoice(store.path(TtsSettings().model))
    recordings = {clip.name: clip for clip in moonshine_clips(store.path("human-clips"))}
    paths = []
    for question in questions:
        recording = recordings.get(question.recording)
        text = recording.text if recording else question.text
        pcm = recording.pcm(WIRE_RATE).tobytes() if recording else b"".join(voice.synthesize(text))
        path = folder / f"{question.name}.wav"
        write_wave(path, pcm)
        path.with_suffix(".txt").write_text(text + "\n", encoding="utf-8")
        paths.append(path)
    return paths


@contextmanager
def _server(port: int) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """Start `rejoinder serve`; yield its process and its OpenAI base URL, and stop it at the end."""
    if not _is_free(port):
        port = free_port()
    command = [sys.executable, "-m", "rejoinder.cli", "serve", "--port", str(port), "--address", "local"]
    server = subprocess.Popen(command)
    try:
        _wait_healthy(server, f"http://127.0.0.1:{port}/healthz")
        yield server, f"ws://127.0.0.1:{port}/v1"
    finally:
        server.send_signal(signal.SIGINT)  # SIGINT, as after Ctrl-C: after SIGTERM Ray prints a stack trace
        try:
            server.wait(60)
        except subprocess.TimeoutExpired:
            server.kill()


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return probe.connect_ex(("127.0.0.1", port)) != 0


def _wait_healthy(server: subprocess.Popen[bytes], url: str) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise BackendError(f"`rejoinder serve` ended with status {server.returncode}.", "See its output above.")
        try:
            if httpx2.get(url, timeout=2.0).status_code == 200:
                return
        except httpx2.HTTPError:
            pass  # the server does not listen yet: try again
        time.sleep(0.5)
    raise BackendError(f"the server is not healthy after {START_TIMEOUT_S:.0f} s.", "See the output above.")


def _converse(clips: list[Path], url: str, folder: Path) -> list[TurnRecord]:
    turns = folder / "turns.json"
    with suppress(
        typer.Exit
    ):  # `talk` raises typer.Exit for an unanswered turn, but the demo reads that from the records
        talk(clips, url=url, barge_in=[f"{INTERRUPTION}:{INTERRUPT_AFTER_S}"], save=folder, json_file=turns)
    return [TurnRecord(**turn) for turn in json.loads(turns.read_text(encoding="utf-8"))]


def faults_of(record: TurnRecord) -> Iterator[str]:
    """Yield a sentence for each fault of a turn.

    The faults are a turn without an answer (an apology does not count), and a word error rate above MAX_WER (10%) or
    unknown.
    """
    if not record.ok:
        yield f"{record.clip} was not answered ({record.outcome})."
    if record.wer is None or record.wer > MAX_WER:
        yield f"{record.clip} was transcribed as {record.heard!r} instead of {record.expected!r}."
