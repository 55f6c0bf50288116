"""One event of the corpus: what is heard, and what the agent must do. Pure data; `audio.py` makes the sound."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, fields
from enum import Enum
from typing import Any

HELD_OUT_OF = 3
"""One of this many contents (texts or clips) is held out. See `split`."""


# Prefix of the text that `split` hashes. Its number was chosen among those below 4,000, once and before any
# measurement: with it, about a third of the contents of every kind is held out, and neither of the model store's two
# readings is.
_SALT = "split-3766:"


class Split(Enum):
    """Part of the corpus. No rule, weight or threshold may be set with the help of a HELD_OUT event."""

    DEVELOPMENT = "development"
    HELD_OUT = "held-out"


class Scene(Enum):
    """What the agent does when the event begins.

    LISTENING: it is the caller's turn. OVER_REPLY: a reply is audible. IDLE: nobody speaks to the agent.
    """

    LISTENING = "listening"
    OVER_REPLY = "over-reply"
    IDLE = "idle"


class Expected(Enum):
    """The agent's right behavior in an event.

    ANSWER: wait in every pause, and answer after the end. YIELD: stop the reply. GO_ON: finish the reply. IGNORE: say
    nothing.
    """

    ANSWER = "answer"
    YIELD = "yield"
    GO_ON = "go-on"
    IGNORE = "ignore"


@dataclass(frozen=True, slots=True)
class Part:
    """Uninterrupted speech or noise of one event.

    Attributes:
        text: What is said. For a clip, the words if they are known.
        clip: Name of a human clip (`HumanClip.name`), or of a computed noise; "" for a synthetic voice.
        start_s: Start of the part, in seconds from the clip's start.
        end_s: End of the part, in seconds from the clip's start; None for the clip's end.
    """

    text: str = ""
    clip: str = ""
    start_s: float = 0.0
    end_s: float | None = None


@dataclass(frozen=True, slots=True)
class CorpusEvent:
    """One event of the corpus: sound that the agent hears, and how it should behave.

    Attributes:
        id: CONTENT/VARIANT. Events with the same content share words or a clip, and are in the same split.
        kind: Kind of event, for the tables: "number", "backchannel", ...
        voice: Who speaks: a voice of `voices.py`, the source of a human clip, or "" for a noise.
        scene: What the agent does when the event begins.
        expected: The right behavior.
        parts: What is heard, in order.
        pauses_ms: Silence after each part except the last, in milliseconds.
        level_dbfs: Active speech level of the parts in dBFS.
        asked: What the agent has said before; "" if nothing.
        background: Sound below the whole event: "television", "babble" or "".
        background_dbfs: Level of the background in dBFS.
    """

    id: str
    kind: str
    voice: str
    scene: Scene
    expected: Expected
    parts: tuple[Part, ...]
    pauses_ms: tuple[int, ...] = ()
    level_dbfs: float = -24.0
    asked: str = ""
    background: str = ""
    background_dbfs: float = -60.0

    @property
    def content(self) -> str:
        """The id's part before the slash: the name of the words or clip that several events share."""
        return self.id.split("/", 1)[0]

    @property
    def split(self) -> Split:
        """The event's part of the corpus: DEVELOPMENT or HELD_OUT."""
        return split(self.content)

    def document(self) -> dict[str, Any]:
        """Return the event as an object for JSON, with its split. Fields of parts with default values are left out."""
        defaults = {field.name: field.default for field in fields(Part)}
        made = asdict(self) | {"scene": self.scene.value, "expected": self.expected.value, "split": self.split.value}
        made["parts"] = [{k: v for k, v in asdict(part).items() if v != defaults[k]} for part in self.parts]
        return made


def split(content: str) -> Split:
    """Return the part of the corpus to which all events of a content belong: a hash of its name decides."""
    return Split.HELD_OUT if _number(_SALT + content) % HELD_OUT_OF == 0 else Split.DEVELOPMENT


def chosen(key: str, options: tuple[Any, ...]) -> Any:
    """Return one of `options`, selected by a hash of `key`, so that the same key always gives the same option."""
    return options[_number(key) % len(options)]


def order_of(key: str) -> int:
    """Return a hash of `key` as a number. Sorting by it shuffles keys in the same way each time."""
    return _number(f"order:{key}")


def _number(key: str) -> int:
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big")
