"""`rejoinder demo`: a conversation with real models; each turn must be heard right and answered sanely."""

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
import yaml
from rich.console import Console

from cluster.environment import free_port
from loadtest.results.turn_record import TurnOutcome, TurnRecord
from loadtest.scenario.clips import write_wave
from rejoinder.cli.talk import talk
from rejoinder.core.audio.pcm import WIRE_RATE
from rejoinder.core.errors import BackendError
from rejoinder.core.measuring.answer_rules import AnswerRule
from rejoinder.core.settings.settings import ModelStoreSettings, TtsSettings
from rejoinder.store import ModelStore, open_store
from rejoinder.store.human_clips import moonshine_clips

MAX_WER = 0.10
"""Highest word error rate of a turn that counts as transcribed correctly."""
START_TIMEOUT_S = 600.0
INTERRUPT_AFTER_S = 1.5
"""Seconds of a reply after which the interruption starts."""
FAILED = 1
"""Exit status if a turn was not answered, was answered wrongly, or was not transcribed correctly."""
INSTRUCTIONS = """\
You are the friendly telephone assistant of the restaurant Luna. Answer in one short spoken sentence.
Examples:
Caller: I would like to book a table for two people on Monday.
You: Gladly! A table for two people on Monday. What is your phone number?
Caller: My phone number is 555-222. Can you read it back to me?
You: Your phone number is 555-222.
Caller: Which soups do you have?
You: We have tomato soup and onion soup, and both are made fresh every day."""
"""Instructions of the demo's assistant. Everything else is the default configuration."""

ANY_ANSWER = AnswerRule()
"""Rule that accepts every English answer."""


@dataclass(frozen=True, slots=True)
class DemoLine:
    """One line of the caller.

    Attributes:
        name: Name of its WAV file, without the suffix.
        text: Text for the Piper voice; "" for a recording.
        recording: Name of a human clip (`HumanClip.name`); "" for synthetic speech.
        rule: Says whether the assistant's answer to this line is right.
    """

    name: str
    text: str = ""
    recording: str = ""
    rule: AnswerRule = ANY_ANSWER


QUESTIONS = (
    DemoLine(
        "1-booking",
        "Hello, I would like to book a table for four people on Friday.",
        rule=AnswerRule(any=("table", "book\\w*", "friday", "4"), none=("sorry", "cannot", "can't")),
    ),
    DemoLine(
        "2-phone-number",
        "My phone number is five five five, zero one two, three four five six. Can you read it back to me?",
        rule=AnswerRule(digits="5550123456"),
    ),
    DemoLine("3-memory", "On which day is my table?", rule=AnswerRule(all=("friday",))),
    DemoLine("4-soups", "What kinds of soup do you have?", rule=AnswerRule(any=("soups?",))),
    DemoLine("5-interruption", "Stop please. What is the capital of Italy?", rule=AnswerRule(all=("rome",))),
)
INTERRUPTION = 5
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
    port: Annotated[
        int, typer.Option(help="HTTP port of the server. If it is 0 or in use, a free one is taken.")
    ] = 8000,
) -> None:
    """Start the server, book a table with it, interrupt it, and print the latency of each turn by stage.

    The conversation has four turns and an interruption. The caller gives a phone number, which must be read back, and
    asks about an earlier turn. A rule judges each answer. Afterwards the server keeps running until Ctrl-C, unless
    --once is given.

    Exit status: 0 if every turn was answered sanely and transcribed with a word error rate of at most 10%, 1 if not,
    2 after an error.
    """
    console = Console(highlight=False)
    folder = folder or Path(tempfile.mkdtemp(prefix="rejoinder-demo-"))
    folder.mkdir(parents=True, exist_ok=True)
    clips = make_clips(folder, open_store(ModelStoreSettings()))
    config = _write_config(folder / "ray_config.yaml")
    with _server(port, config) as (server, url):
        console.rule("The conversation")
        console.print(f"The instructions of the assistant:\n{INSTRUCTIONS}", style="dim")
        console.print("The Piper voice speaks the caller's lines and the replies.", style="dim")
        records = _converse(clips, url, folder)
        if json_file:
            json_file.write_text(json.dumps([asdict(record) for record in records], indent=1) + "\n", encoding="utf-8")
        faults = [
            fault for record, line in zip(records, QUESTIONS, strict=False) for fault in faults_of(record, line.rule)
        ]
        console.rule("Verdict")
        for fault in faults:
            console.print(f"! {fault}", style="bold red", markup=False)
        if not faults:
            console.print("Every turn was answered sanely and heard with at most 10% word errors.", style="bold green")
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


def _write_config(path: Path) -> Path:
    """Write a Serve configuration with the demo's instructions, and return its path."""
    document = {"applications": [{"args": {"conversation": {"instructions": INSTRUCTIONS}}}]}
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return path


@contextmanager
def _server(port: int, config: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """Start `rejoinder serve`; yield its process and its OpenAI base URL, and stop it at the end."""
    if port == 0 or not _is_free(port):
        port = free_port()
    command = [sys.executable, "-m", "rejoinder.cli", "serve", str(config), "--port", str(port), "--address", "local"]
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
    # `talk` raises typer.Exit for an unanswered turn, but the demo reads that from the records.
    with suppress(typer.Exit):
        talk(clips, url=url, barge_in=[f"{INTERRUPTION}:{INTERRUPT_AFTER_S}"], save=folder, json_file=turns)
    return [TurnRecord(**turn) for turn in json.loads(turns.read_text(encoding="utf-8"))]


def faults_of(record: TurnRecord, rule: AnswerRule) -> Iterator[str]:
    """Yield a sentence for each fault of a turn.

    The faults are a turn without an answer (an apology does not count), an answer that breaks its rule, and a word
    error rate above MAX_WER (10%) or unknown. Of an interrupted answer only the words that were heard are known, so it
    is not judged.
    """
    if not record.ok:
        yield f"{record.clip} was not answered ({record.outcome})."
    elif record.outcome != TurnOutcome.INTERRUPTED.value and (fault := rule.fault(record.answered)):
        yield f"{record.clip} was answered with {record.answered!r} ({fault.value})."
    if record.wer is None or record.wer > MAX_WER:
        yield f"{record.clip} was transcribed as {record.heard!r} instead of {record.expected!r}."
