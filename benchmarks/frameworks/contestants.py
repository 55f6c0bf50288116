"""The compared systems (contenders): one row for each system and each way to run it, with its Python interpreter."""

from __future__ import annotations

import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path

from benchmarks.frameworks.process import ROOT
from rejoinder.core.errors import ConfigError

HERE = Path(__file__).parent
PIP_S = 1800.0


@dataclass(frozen=True, slots=True)
class Contestant:
    """One row of the comparison.

    Attributes:
        name: Name for `--only` and in files.
        title: Label in the table.
        module: Module to run with `python -m`.
        arguments: Arguments of the module, in addition to those of the harness.
        environment: Name of its requirements file in this folder, without `requirements-`. "" is our environment.
        alone: True to start one process per session.
        networked: True for the whole system, reached over a WebSocket, instead of sessions reached over a local socket.
        first: Number of sessions of the first run.
        most: Largest number of sessions to try.
        bar: Required number of sessions per core. 0 for a competing framework.
        form: Framework of the row: "ours" (Rejoinder), "livekit" or "pipecat". A framework may have several rows. The
            one with the most sessions is compared with Rejoinder's.
    """

    name: str
    title: str
    module: str
    arguments: tuple[str, ...] = ()
    environment: str = ""
    alone: bool = False
    networked: bool = False
    first: int = 8
    most: int = 400
    bar: int = 0
    form: str = "ours"


OURS = "deployments.local.headless"
CONTESTANTS = (
    Contestant(
        "ours-headless",
        "Rejoinder, headless, silence alone",
        OURS,
        ("--detector", "none"),
        first=128,
        bar=150,
    ),
    Contestant(
        "ours-smart-turn",
        "Rejoinder, headless, Smart Turn",
        OURS,
        ("--detector", "smart_turn"),
        first=64,
        bar=100,
    ),
    Contestant(
        "ours-all-in",
        "Rejoinder, Ray and WebSocket included, Smart Turn",
        OURS,
        ("--detector", "smart_turn"),
        networked=True,
        first=32,
        bar=100,
    ),
    Contestant(
        "livekit",
        "LiveKit Agents 1.8.9, one process",
        "benchmarks.frameworks.livekit_agent",
        environment="livekit",
        first=24,
        form="livekit",
    ),
    Contestant(
        "livekit-processes",
        "LiveKit Agents 1.8.9, one process a session",
        "benchmarks.frameworks.livekit_agent",
        environment="livekit",
        alone=True,
        first=8,
        most=48,
        form="livekit",
    ),
    Contestant(
        "pipecat",
        "Pipecat 1.14.0, one process",
        "benchmarks.frameworks.pipecat_bot",
        environment="pipecat",
        first=8,
        form="pipecat",
    ),
    Contestant(
        "pipecat-processes",
        "Pipecat 1.14.0, one process a session",
        "benchmarks.frameworks.pipecat_bot",
        environment="pipecat",
        alone=True,
        first=4,
        most=48,
        form="pipecat",
    ),
)


def named(names: tuple[str, ...]) -> tuple[Contestant, ...]:
    """Return the rows with these names in the table's order, or all rows if `names` is empty.

    Raises:
        ConfigError: There is no row of that name.
    """
    valid = {contestant.name for contestant in CONTESTANTS}
    if unknown := [name for name in names if name not in valid]:
        raise ConfigError(
            f"there is no contender {unknown[0]!r}.", f"Use one of {', '.join(sorted(valid))}.", field="only"
        )
    return tuple(contestant for contestant in CONTESTANTS if not names or contestant.name in names)


def python_of(contestant: Contestant, cache: Path) -> Path:
    """Return the contender's Python interpreter.

    If the contender needs a separate environment, it is created in `cache` at the first use, and again when its
    requirements file changes.

    Raises:
        ConfigError: The environment could not be created.
    """
    if not contestant.environment:
        return Path(sys.executable)
    requirements = HERE / f"requirements-{contestant.environment}.txt"
    folder = cache / contestant.environment
    python, stamp = folder / "bin" / "python", folder / "installed.txt"
    required = requirements.read_text(encoding="utf-8")
    if not (stamp.is_file() and stamp.read_text(encoding="utf-8") == required):
        venv.create(folder, with_pip=True)
        command = [str(python), "-m", "pip", "install", "--quiet", "--requirement", str(requirements)]
        try:
            subprocess.run(command, check=True, timeout=PIP_S, cwd=ROOT)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            raise ConfigError(
                f"the environment of {contestant.title} could not be created ({error}).",
                "See pip's output above.",
                field=str(requirements),
            ) from None
        stamp.write_text(required, encoding="utf-8")
    return python
