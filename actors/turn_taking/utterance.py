"""What the caller is saying: announced, heard, and made a turn of the conversation."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from actors.listening.audio_input import AudioInput
from actors.listening.end_of_turn import EndOfTurn, EndOfTurnRequest
from actors.listening.interim_transcripts import InterimTranscripts
from actors.replying.requests import CommittedTurn
from actors.replying.response import claim
from actors.stages.session_context import SessionContext
from rejoinder.core.audio.pcm import STT_RATE
from rejoinder.core.measuring.waterfall import Marks, Stage
from rejoinder.core.turns.commands import CommitTurn
from rejoinder.core.wire import server
from rejoinder.core.wire.items import Item

# What the language model reads of a caller who lets the idle timeout pass; shown as the item's transcript.
SILENCE = "(silence)"


class CallerUtterance:
    """The one that is under way; after its commit, the next."""

    def __init__(
        self, context: SessionContext, ear: AudioInput, listening: EndOfTurn, partials: InterimTranscripts
    ) -> None:
        self._context = context
        self._ear = ear
        self._listening = listening
        self._partials = partials
        self._item_id: str | None = None
        self._hearing: EndOfTurnRequest | None = None

    def announce(self, start: int) -> None:
        """The caller speaks, since sample `start`."""
        self._item_id = self._context.stamp("item")
        self._partials.begin(start - self._padding)
        self._context.emit(server.speech_started(self._item_id, _ms(max(0, start - self._padding))))

    def hear(self, start: int, end: int, judged: Callable[[float | None], None] | None) -> None:
        """Find out what was said in [start, end), and with `judged` whether it was all."""
        begin = start - self._padding
        heard = self._ear.pcm(begin, end)
        guess = self._partials.settle(self._ear.dip)
        since = partial(self._ear.pcm, begin)
        hearing = self._listening.start(
            heard, judged, lambda: since(self._ear.processed), self._partials.tokens, guess=guess
        )
        self._hearing = hearing
        hearing.transcript.add_done_callback(lambda _: self._known(hearing))

    def _known(self, hearing: EndOfTurnRequest) -> None:
        """Its transcript is there, or nobody waits for it any more: a guess comes too late."""
        if self._hearing is hearing:
            self._partials.pause()

    @property
    def hearing(self) -> EndOfTurnRequest:
        """What `hear` began."""
        assert self._hearing is not None  # the machine asks for Hear before it asks for anything about it
        return self._hearing

    def forget(self) -> None:
        """Drop what is being found out about the end: there is more to hear."""
        if self._hearing:
            self._hearing.forget()
            self._hearing = None
            self._partials.resume()

    def drop(self, end: int) -> None:
        """The client wants no turn made of what came before sample `end`."""
        self._item_id = None
        self._partials.end()
        self._ear.turn_over(end, end)

    def attend(self) -> None:
        """A reply waits for this utterance's words."""
        self._partials.attend()

    def dismiss(self, speech_end: int, end: int) -> None:
        """It was no turn: the client hears of its end, and that nothing is made of it."""
        item_id, self._item_id = self._item_id, None
        self._partials.end()
        self._ear.turn_over(speech_end, end)
        if item_id is not None:
            self._context.emit(server.speech_stopped(item_id, _ms(end)))
            self._context.emit(server.cleared())

    def commit(self, turn: CommitTurn) -> CommittedTurn:
        """Make it a turn of the conversation, and tell the client."""
        if not turn.heard:
            self.forget()
            self.hear(turn.start, turn.end, None)
        hearing, self._hearing = self.hearing, None
        self._partials.end()
        item = Item(self._item_id or self._context.stamp("item"), spoken=True, text=None)
        claim(self._context, item.id)
        self._ear.turn_over(turn.speech_end, turn.end)
        if self._item_id is not None:
            self._context.emit(server.speech_stopped(self._item_id, _ms(turn.end)))
        self._add(item)
        self._item_id = None
        began = self._ear.arrival(turn.speech_end) or hearing.began
        return CommittedTurn(turn, item=item, hearing=hearing, marks=_marks(began, hearing), began=began)

    def commit_silence(self, start: int, end: int) -> None:
        """The caller said nothing for so long that this is its turn."""
        item_id = self._context.stamp("item")
        claim(self._context, item_id)
        self._context.emit(server.timeout_triggered(item_id, _ms(start), _ms(end)))
        self._add(Item(item_id, spoken=True, text=SILENCE))

    def _add(self, item: Item) -> None:
        previous = self._context.conversation.append(item)
        self._context.emit(server.committed(item.id, previous))
        self._context.emit(server.item_event("added", item, previous))
        self._context.emit(server.item_event("done", item, previous))

    @property
    def _padding(self) -> int:
        return round(self._ear.settings.prefix_padding_ms * STT_RATE / 1000)


def _marks(began: float, hearing: EndOfTurnRequest) -> Marks:
    """Of a turn whose reply is still to come: the transcript ends STT."""
    marks = Marks()
    marks.start(Stage.SILENCE, began)
    marks.end(Stage.SILENCE, hearing.began)
    marks.start(Stage.STT, hearing.began)
    return marks


def _ms(samples: int) -> int:
    return round(samples * 1000 / STT_RATE)
