"""Snapshot of a conversation: everything that another host needs to go on with it. It contains no audio.

The reply that is in progress is part of it, with the times at which its words end in the audio. A client reports how
much of the audio it has played, and these times tell which words that were.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from rejoinder.core.reply.prompt_window import NOTHING, ConversationSummary
from rejoinder.core.turns.endpointing import PauseStats
from rejoinder.core.wire.fields import Json
from rejoinder.core.wire.items import Item
from rejoinder.core.wire.session import SessionConfig

SLACK_MS = 60
"""A word counts as heard if at most this many milliseconds of it are missing: clients round, and a word that is nearly
over is not repeated.
"""

GENERATION_BITS = 32
"""Low bits of a generation, which are random. The bits above count how often the conversation was resumed."""


def next_generation(generation: int, nonce: int) -> int:
    """Return the generation after a resume. It is greater than `generation`.

    Two hosts that resume at the same moment get generations that differ by their random `nonce`, so one of them is the
    newer for every journal.
    """
    return ((generation >> GENERATION_BITS) + 1 << GENERATION_BITS) | (nonce & ((1 << GENERATION_BITS) - 1))


def resume_count(generation: int) -> int:
    """Return how often the conversation was resumed before it got this generation; 0 for a new session."""
    return generation >> GENERATION_BITS


@dataclass(frozen=True, slots=True)
class SpokenProgress:
    """How far a spoken answer has come.

    Attributes:
        text: All words of the answer that are known, spoken or not.
        marks: For each word a pair: the number of characters of `text` up to its end, and the milliseconds of the
            item's audio at which it ends. Audio that does not exist yet is estimated.
        heard_ms: Milliseconds of audio that the caller has heard, as the host estimated when the snapshot was made.
        sent_ms: Milliseconds of audio that were sent.
        complete: True if no word follows `text`.
    """

    text: str
    marks: tuple[tuple[int, int], ...] = ()
    heard_ms: int = 0
    sent_ms: int = 0
    complete: bool = False

    def heard(self, played_ms: float) -> str:
        """Return the words that were heard when `played_ms` milliseconds of the item's audio were played."""
        ends = [characters for characters, end_ms in self.marks if end_ms <= played_ms + SLACK_MS]
        return self.text[: ends[-1]] if ends else ""


@dataclass(frozen=True, slots=True)
class LastReply:
    """The newest reply of a conversation, in progress or ended.

    Attributes:
        request: The client's own request for it, as `actors` encodes it; None if it follows the session's settings.
        item_id: Id of its item; None if the client has not seen the response.
        progress: How far it was spoken; None if it is in text or has no words.
        ended: True if it is over.
        earlier: Words of the same answer in items before, if the answer was cut off and continued.
        earlier_items: Ids of these items.
    """

    request: Json | None = None
    item_id: str | None = None
    progress: SpokenProgress | None = None
    ended: bool = False
    earlier: str = ""
    earlier_items: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SessionSnapshot:
    """State of one conversation.

    Attributes:
        key: Makes the session's ids unique; the session's id is "sess_" and the key.
        generation: Grows with each resume (`next_generation`). The newest one is valid.
        config: Configuration in effect.
        items: Items of the conversation. The text of a turn whose transcript is not known yet is None.
        started_at: Unix time in seconds at which the session began.
        owner: Digest of the API key that opened the session; "" if the host has no keys.
        summary: Newest summary of the turns that have left the prompt.
        pauses: The caller's pauses inside turns, for endpointing.
        caller_dbfs: Level of the caller's speech; None before the first turn.
        greeted: True if the greeting was spoken, or is not to be spoken any more.
        spoken: True if audio was sent, so that the voice cannot change any more.
        reply: The newest reply; None if there is none or the caller has interrupted it.
    """

    key: str
    generation: int
    config: SessionConfig
    items: tuple[Item, ...]
    started_at: float
    owner: str = ""
    summary: ConversationSummary = NOTHING
    pauses: PauseStats = field(default_factory=PauseStats)
    caller_dbfs: float | None = None
    greeted: bool = True
    spoken: bool = False
    reply: LastReply | None = None
