"""Decision what goes on when a conversation is resumed: an answer that was cut off, a question, or nothing.

The items are those that the caller has heard. A turn whose transcript was not known is left out: the client sends its
audio again, and the turn is made anew.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from rejoinder.core.survival.snapshot import LastReply, SessionSnapshot, SpokenProgress
from rejoinder.core.wire.fields import Json
from rejoinder.core.wire.items import Item


@dataclass(frozen=True, slots=True)
class HeardReport:
    """The client's report of what it has played.

    Attributes:
        item_id: Id of the newest assistant item of which it has got audio.
        played_ms: Milliseconds of the item's audio that it has played or will still play.
    """

    item_id: str
    played_ms: int


@dataclass(frozen=True, slots=True)
class KnownAnswer:
    """Beginning of an answer that was cut off.

    Attributes:
        prefix: All words that are known, from the beginning of the answer. A language model continues after them.
        unheard: The last part of `prefix`, which the caller has not heard. It is spoken first.
        complete: True if the answer ends with these words, so that no language model is needed.
        heard: The first part of `prefix`, which the caller has heard.
        items: Ids of the items that contain `heard`. They are not part of the prompt.
    """

    prefix: str
    unheard: str
    complete: bool
    heard: str = ""
    items: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Resumption:
    """What a host does to go on with a conversation.

    Attributes:
        items: Items of the conversation, as the caller has heard them.
        kind: "continued" if an answer goes on, "answered" if a question is answered, None if nothing is to be said.
        request: The client's own request for the reply (`LastReply.request`); None for the session's settings.
        known: What is known of the answer; None if nothing is.
    """

    items: tuple[Item, ...]
    kind: Literal["continued", "answered"] | None = None
    request: Json | None = None
    known: KnownAnswer | None = None

    @property
    def continues_item_id(self) -> str | None:
        """Id of the item whose answer goes on; None if none does."""
        return self.known.items[-1] if self.kind == "continued" and self.known and self.known.items else None

    @property
    def audio_after_item_id(self) -> str | None:
        """Id of the last item that came from the caller's audio; None if there is none."""
        return next((item.id for item in reversed(self.items) if item.role == "user" and item.spoken), None)


def resume(snapshot: SessionSnapshot, report: HeardReport | None) -> Resumption:
    """Return what to do with a conversation that was cut off.

    Args:
        snapshot: Its newest snapshot.
        report: The client's report; None if it sent none. Then the snapshot's own estimate is used.
    """
    items = tuple(item for item in snapshot.items if item.role != "user" or item.text is not None or item.call)
    reply = snapshot.reply
    if reply is None:
        return Resumption(items)
    if reply.item_id is None or reply.progress is None:
        return _without_words(items, reply)
    return _cut_off(items, reply, reply.progress, _played_ms(items, reply, reply.progress, report))


def _without_words(items: tuple[Item, ...], reply: LastReply) -> Resumption:
    """Return what to do if no word of the newest reply is known."""
    if reply.ended:
        return Resumption(items)
    items = tuple(item for item in items if item.id != reply.item_id)
    if reply.earlier:
        known = KnownAnswer(reply.earlier, "", complete=False, heard=reply.earlier, items=reply.earlier_items)
        return Resumption(items, "continued", reply.request, known)
    if reply.request is None and not _ends_with_question(items):
        return Resumption(items)  # the transcript of the question was not known: its audio comes again
    return Resumption(items, "answered", reply.request)


def _cut_off(items: tuple[Item, ...], reply: LastReply, progress: SpokenProgress, played_ms: float) -> Resumption:
    """Return what to do after `played_ms` milliseconds of the newest reply's audio were played."""
    at = next((index for index, item in enumerate(items) if item.id == reply.item_id), None)
    heard = progress.heard(played_ms)
    whole = progress.complete or reply.ended
    if at is None or (whole and len(heard) == len(progress.text)):
        return Resumption(_with_heard(items, at, heard, status="completed") if not reply.ended else items)
    if _ends_with_question(items[at + 1 :]):
        # The caller has gone on already, so the answer before is not repeated.
        if reply.ended:
            return Resumption(items)
        return Resumption(_with_heard(items, at, heard), "answered", None)
    sources = (*reply.earlier_items, *([items[at].id] if heard else []))
    known = KnownAnswer(
        prefix=f"{reply.earlier} {progress.text}".strip(),
        unheard=progress.text[len(heard) :].strip(),
        complete=whole,
        heard=f"{reply.earlier} {heard}".strip(),
        items=sources,
    )
    kind: Literal["continued", "answered"] = "continued" if sources else "answered"
    return Resumption(_with_heard(items, at, heard, played_ms=played_ms), kind, reply.request, known)


def _with_heard(
    items: tuple[Item, ...],
    at: int | None,
    heard: str,
    *,
    status: Literal["completed", "incomplete"] = "incomplete",
    played_ms: float | None = None,
) -> tuple[Item, ...]:
    """Return the items, with the words `heard` in item number `at`. Without such words the item is left out."""
    if at is None:
        return items
    item = items[at]
    audio_ms = item.audio_ms if played_ms is None else round(played_ms)
    kept = [replace(item, text=heard, status=status, audio_ms=audio_ms)] if heard else []
    return (*items[:at], *kept, *items[at + 1 :])


def _played_ms(
    items: tuple[Item, ...], reply: LastReply, progress: SpokenProgress, report: HeardReport | None
) -> float:
    """Return how many milliseconds of the newest reply's audio the caller has heard."""
    if report is None:
        return float("inf") if reply.ended else progress.heard_ms
    if report.item_id == reply.item_id:
        return report.played_ms
    # The client names an item before the newest reply: it has got nothing of this reply.
    known = any(item.id == report.item_id for item in items)
    return 0 if known else (float("inf") if reply.ended else progress.heard_ms)


def _ends_with_question(items: tuple[Item, ...]) -> bool:
    """Return True if the last item with words is the user's, or the result of a tool."""
    last = next((item for item in reversed(items) if item.text or item.call), None)
    return last is not None and (last.role == "user" or last.type == "function_call_output")
