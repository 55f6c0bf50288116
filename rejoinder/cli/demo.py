"""`rejoinder demo`: a whole conversation on this machine, with every model real, and a verdict on it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
import time
import wave
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import httpx2
import numpy as np
import soxr
import typer
from rich.console import Console

from cluster.environment import free_port
from rejoinder.cli.talk import talk
from rejoinder.core.audio import WIRE_RATE, float_to_pcm16
from rejoinder.core.config import ModelStoreSettings, TtsStage
from rejoinder.core.errors import BackendError, ConfigError
from rejoinder.store import open_store

HEARD_WER = 0.10
START_TIMEOUT_S = 600.0
INTERRUPT_AFTER_S = 1.5
FAILED = 1


@dataclass(frozen=True, slots=True)
class Question:
    """One line of the caller's: spoken by our own voice (synthetic), or cut from a recording of a person."""

    name: str
    text: str
    recording: str | None = None
    start_s: float = 0.0
    end_s: float = 0.0


QUESTIONS = (
    Question("1-synthetic-capital", "What is the capital of France?"),
    # Dickens, read aloud; the recording and its place are data of the model store's `human-clips`.
    Question("2-human-dickens", "we had everything before us, we had nothing before us,", "two_cities.wav", 20.9, 24.3),
    Question("3-synthetic-story", "Please tell me a long story about a brave little fox."),
    Question("4-synthetic-interruption", "Stop please. What is the capital of Italy?"),
)
INTERRUPTION = 4


def demo(
    once: Annotated[bool, typer.Option("--once", help="Stop after the conversation, with a verdict.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the turns as JSON.")] = None,
    folder: Annotated[Path | None, typer.Option("--save", help="Where the recordings go.")] = None,
    port: Annotated[int, typer.Option(help="HTTP port; a free one is taken if it is occupied.")] = 8000,
) -> None:
    """Serve, hold a three-turn conversation whose third answer is interrupted, and show where the time went.

    Exit status 0 only if every turn was answered, and heard with a word error rate of at most 10%.
    """
    console = Console(highlight=False)
    folder = folder or Path(tempfile.mkdtemp(prefix="rejoinder-demo-"))
    folder.mkdir(parents=True, exist_ok=True)
    clips = [_make(question, folder) for question in QUESTIONS]
    with _server(port) as (server, url):
        console.rule("The conversation")
        console.print("Clips named synthetic are spoken by the Piper voice; the human one is a recording.", style="dim")
        records = _converse(clips, url, folder)
        if json_file:
            json_file.write_text(json.dumps(records, indent=1) + "\n", encoding="utf-8")
        faults = [fault for record in records for fault in _faults(record)]
        console.rule("Verdict")
        for fault in faults:
            console.print(f"! {fault}", style="bold red", markup=False)
        if not faults:
            console.print("Every turn was answered, and heard within 10% word error rate.", style="bold green")
        console.print(f"Recordings, the whole conversation among them: {folder}")
        if not once:
            console.print(f"The server stays up. Talk to it:  rejoinder talk YOUR.wav --url {url}\nCtrl-C stops it.")
            server.wait()
    if faults:
        raise typer.Exit(FAILED)


def _make(question: Question, folder: Path) -> Path:
    """The question as a WAV with its true text beside it."""
    path = folder / f"{question.name}.wav"
    pcm = _cut(question) if question.recording else _speak(question.text)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(WIRE_RATE)
        file.writeframes(pcm)
    path.with_suffix(".txt").write_text(question.text + "\n", encoding="utf-8")
    return path


def _speak(text: str) -> bytes:
    from deployments.engines.piper import PiperVoice

    model = TtsStage().model
    return b"".join(PiperVoice(open_store(ModelStoreSettings()).path(model)).synthesize(text))


def _cut(question: Question) -> bytes:
    assert question.recording is not None
    source = open_store(ModelStoreSettings()).path("human-clips") / question.recording
    with wave.open(str(source), "rb") as file:
        rate = file.getframerate()
        file.setpos(round(question.start_s * rate))
        frames = file.readframes(round((question.end_s - question.start_s) * rate))
    samples = np.frombuffer(frames, "<i2").astype(np.float32) / 32768
    return float_to_pcm16(soxr.resample(samples, rate, WIRE_RATE))


@contextmanager
def _server(port: int) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """`rejoinder serve` as a user would start it; stopped at the end."""
    if not _is_free(port):
        port = free_port()
    command = [sys.executable, "-m", "rejoinder.cli", "serve", "--port", str(port), "--address", "local"]
    server = subprocess.Popen(command)
    try:
        _wait_healthy(server, f"http://127.0.0.1:{port}/healthz")
        yield server, f"ws://127.0.0.1:{port}/v1"
    finally:
        server.send_signal(signal.SIGINT)  # as Ctrl-C would; Ray prints a stack trace for SIGTERM
        try:
            server.wait(60)
        except subprocess.TimeoutExpired:
            server.kill()


def _is_free(port: int) -> bool:
    import socket

    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return probe.connect_ex(("127.0.0.1", port)) != 0


def _wait_healthy(server: subprocess.Popen[bytes], url: str) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise BackendError(f"`rejoinder serve` ended with status {server.returncode}.", "Its output says why.")
        try:
            if httpx2.get(url, timeout=2.0).status_code == 200:
                return
        except httpx2.HTTPError:
            pass  # not listening yet
        time.sleep(0.5)
    raise BackendError(f"not healthy after {START_TIMEOUT_S:.0f} s.", "See the output above.")


def _converse(clips: list[Path], url: str, folder: Path) -> list[dict[str, Any]]:
    turns = folder / "turns.json"
    with suppress(typer.Exit):  # an unanswered turn; the records say which
        talk(clips, url=url, barge_in=[f"{INTERRUPTION}:{INTERRUPT_AFTER_S}"], save=folder, json_file=turns)
    records: list[dict[str, Any]] = json.loads(turns.read_text(encoding="utf-8"))
    if not records:
        raise ConfigError("the conversation left no record.", "See the output above.", field="demo")
    return records


def _faults(record: dict[str, Any]) -> Iterator[str]:
    if not record["answered"]:
        yield f"{record['clip']} was not answered."
    if record["wer"] is None or record["wer"] > HEARD_WER:
        heard = record["heard"]
        yield f"{record['clip']} was heard as {heard!r} instead of {record['expected']!r}."
