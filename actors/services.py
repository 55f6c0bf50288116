"""What every conversation of a host shares."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from actors.hedge import Hedger
from actors.ports import Journal, Metrics, Stages
from actors.voice import Clip
from rejoinder.core.config import Settings

# One is being answered while the next is on its way: more would only wait in the turn model's queue, and can be
# withdrawn here for less.
QUESTIONS_AT_ONCE = 2


@dataclass(frozen=True, slots=True)
class Services:
    """`clock` is monotonic seconds; `apology` is spoken when a stage fails and nothing else can be.

    `questions`: places of the host's questions to the turn model; who waits for one may find it needless meanwhile.
    """

    stages: Stages
    settings: Settings
    hedger: Hedger
    apology: Clip
    metrics: Metrics
    journal: Journal
    clock: Callable[[], float]
    questions: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(QUESTIONS_AT_ONCE))
