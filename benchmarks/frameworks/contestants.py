"""Who is compared, in which form, and how each is started."""

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
    """One row. `environment` names a requirements file beside this one; "" is our own environment.

    `alone`: one process a session. `bar`: the sessions a core that DESIGN section 5 wants; 0 for a rival.
    `form` groups the rows whose best is compared.
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
    """Those rows, in the table's order; all if none is named. Raises ConfigError for a name that is none."""
    known = {contestant.name for contestant in CONTESTANTS}
    if unknown := [name for name in names if name not in known]:
        raise ConfigError(f"no contender is named {unknown[0]!r}.", f"Known: {', '.join(sorted(known))}.", field="only")
    return tuple(contestant for contestant in CONTESTANTS if not names or contestant.name in names)


def python_of(contestant: Contestant, cache: Path) -> Path:
    """Its interpreter; the environment is made at the first use, with the versions of its requirements file."""
    if not contestant.environment:
        return Path(sys.executable)
    requirements = HERE / f"requirements-{contestant.environment}.txt"
    folder = cache / contestant.environment
    python, stamp = folder / "bin" / "python", folder / "installed.txt"
    wanted = requirements.read_text(encoding="utf-8")
    if not (stamp.is_file() and stamp.read_text(encoding="utf-8") == wanted):
        venv.create(folder, with_pip=True)
        command = [str(python), "-m", "pip", "install", "--quiet", "--requirement", str(requirements)]
        try:
            subprocess.run(command, check=True, timeout=PIP_S, cwd=ROOT)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as fault:
            raise ConfigError(
                f"the environment of {contestant.title} could not be made ({fault}).",
                "See pip's output above.",
                field=str(requirements),
            ) from None
        stamp.write_text(wanted, encoding="utf-8")
    return python
