"""The caller's utterance: announced on the wire, transcribed, and committed as a turn of the conversation."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from actors.listening.audio_input import AudioInput
from actors.listening.end_of_turn import EndOfTurn, EndOfTurnRequest
from actors.listening.interim_transcripts import InterimTranscripts
from actors.listening.long_speech import LongSpeech
from actors.listening.transcript_deltas import TranscriptDeltas
from actors.listening.turn_judge import VERDICT_SAMPLES, VerdictRequest
from actors.replying.requests import CommittedTurn
from actors.replying.response import claim_item_id
from actors.stages.session_context import SessionContext
from rejoinder.core.audio.pcm import STT_RATE
from rejoinder.core.measuring.waterfall import Marks, Stage
from rejoinder.core.turns.commands import CommitTurn
from rejoinder.core.wire import server
from rejoinder.core.wire.items import Item

# The user's text in the turn that an idle timeout commits, for the language model and as the item's transcript.
SILENCE = "(silence)"


class CallerUtterance:
    """The caller's current utterance. After its commit or dismissal the object represents the next one."""

    def __init__(
        self,
        context: SessionContext,
        audio_input: AudioInput,
        end_of_turn: EndOfTurn,
        interims: InterimTranscripts,
        *,
        deltas: TranscriptDeltas,
    ) -> None:
        self._deltas = deltas
        self._context = context
        self._audio_input = audio_input
        self._end_of_turn = end_of_turn
        self._interims = interims
        self._long = LongSpeech(audio_input, end_of_turn.transcribe_window)
        self._item_id: str | None = None
        # First sample of the utterance, padding included, and whether the client knows of it.
        self._start = 0
        self._announced = False
        self._request: EndOfTurnRequest | None = None
        # The sample up to which `transcribe` requested the transcript.
        self._heard = 0

    def begin(self, start: int) -> None:
        """Begin the utterance whose speech starts at sample `start` (16 kHz). The client does not know of it yet."""
        self._item_id = self._context.stamp("item")
        padded_start = self._audio_input.padded(start)
        self._long.begin(padded_start, speech_detected=True)
        self._interims.begin(padded_start)
        self._deltas.begin(self._item_id)
        self._start = padded_start
        self._announced = False

    def announce(self) -> None:
        """Tell the client that the caller has been speaking since the beginning of the utterance."""
        if self._item_id is not None and not self._announced:
            self._announced = True
            self._context.emit(server.speech_started(self._item_id, _ms(self._start)))

    def transcribe(self, start: int, end: int, on_verdict: Callable[[float | None], None] | None) -> None:
        """Start the end-of-turn request for samples [start, end).

        `on_verdict` is called with the probability that the turn is over. If it is None, the request transcribes only.
        """
        if not self._long.active:
            self._long.begin(self._audio_input.padded(start), speech_detected=False)
        self._long.advance(end)
        self._heard = end
        first, windows = self._long.rest, self._long.windows
        interim = self._interims.settle(self._audio_input.dip)
        speech = self._audio_input.pcm(first, end)
        verdict = None
        if on_verdict is not None:
            until_now = partial(self._newest_audio, self._audio_input.padded(start))
            verdict = VerdictRequest(speech, until_now, self._context.config.detection, on_verdict)
        request = self._end_of_turn.start(
            speech,
            verdict,
            () if windows else self._interims.tokens,
            interim=None if windows else interim,
            windows=windows,
            speech_detected=self._item_id is not None,
        )
        self._request = request
        request.transcript.add_done_callback(lambda _: self._transcribed(request))

    def _newest_audio(self, start: int) -> bytes:
        """Return the audio from sample `start` to the newest decided one, but no more than the turn detector uses."""
        end = self._audio_input.processed
        return self._audio_input.pcm(max(start, end - VERDICT_SAMPLES), end)

    def grew(self, processed: int) -> None:
        """Transcribe the finished windows of an utterance that continues. `processed` samples of audio are decided."""
        if self._item_id is not None and self._request is None:
            self._long.advance(processed)

    def _transcribed(self, request: EndOfTurnRequest) -> None:
        """Stop interim transcripts, because the final transcript is available or was cancelled."""
        if self._request is request:
            self._interims.pause()

    @property
    def request(self) -> EndOfTurnRequest:
        """The end-of-turn request that `transcribe` started."""
        # The turn machine sends the command Transcribe before every command that needs the request.
        assert self._request is not None
        return self._request

    def cancel_request(self) -> None:
        """Cancel the end-of-turn request, because the caller continues."""
        if self._request:
            self._request.cancel()
            self._request = None
            self._interims.resume()

    def clear(self, end: int) -> None:
        """Drop the audio before sample `end`, because the client cleared it."""
        self._item_id = None
        self._deltas.end()
        self._long.cancel()
        self._interims.end()
        self._audio_input.end_turn(end, end)

    def prioritize(self) -> None:
        """Request interim transcripts more often, because a paused reply waits for the words of this utterance."""
        self._interims.prioritize()

    def dismiss(self, speech_end: int, end: int) -> None:
        """End the utterance without a turn, and tell the client if it knows of the utterance.

        Args:
            speech_end: The sample (16 kHz) at which the utterance's speech ended.
            end: The sample before which all audio is dropped.
        """
        item_id, self._item_id = self._item_id, None
        self._deltas.end()
        self._long.cancel()
        self._interims.end()
        self._audio_input.end_turn(speech_end, end, heard=speech_end)
        if item_id is not None and self._announced:
            self._context.emit(server.speech_stopped(item_id, _ms(end)))
            self._context.emit(server.cleared())

    def commit(self, turn: CommitTurn) -> CommittedTurn:
        """Make the utterance a turn of the conversation, and tell the client.

        Starts the end-of-turn request first if the command says that none was made for this audio.
        """
        if not turn.transcript_requested:
            self.cancel_request()
            self.transcribe(turn.start, turn.end, None)
        self.announce()
        request, self._request = self.request, None
        self._long.end()
        self._interims.end()
        self._learn_level(turn, request)
        item = Item(self._item_id or self._context.stamp("item"), spoken=True, text=None)
        claim_item_id(self._context, item.id)
        self._audio_input.end_turn(turn.speech_end, turn.end, heard=self._heard)
        if self._item_id is not None:
            self._context.emit(server.speech_stopped(self._item_id, _ms(turn.end)))
        self._add(item)
        self._item_id = None
        speech_ended_at = self._audio_input.arrival(turn.speech_end) or request.started_at
        return CommittedTurn(
            turn,
            item=item,
            end_of_turn=request,
            marks=_marks(speech_ended_at, request),
            speech_ended_at=speech_ended_at,
            streamed=self._deltas.end(),
        )

    def _learn_level(self, turn: CommitTurn, request: EndOfTurnRequest) -> None:
        """Use the level of a turn's speech to update the caller's level, once the transcript is known to have words."""
        level = self._audio_input.level(turn.start, turn.speech_end)

        def learn(_: object) -> None:
            if request.transcribed and request.transcript.result().text:
                self._audio_input.caller_heard(level)

        request.transcript.add_done_callback(learn)

    def commit_silence(self, start: int, end: int) -> None:
        """Make samples [start, end), which are silence, a turn: the caller said nothing during the idle timeout."""
        item_id = self._context.stamp("item")
        claim_item_id(self._context, item_id)
        self._context.emit(server.timeout_triggered(item_id, _ms(start), _ms(end)))
        self._add(Item(item_id, spoken=True, text=SILENCE))

    def _add(self, item: Item) -> None:
        previous = self._context.conversation.append(item)
        self._context.emit(server.committed(item.id, previous))
        self._context.emit(server.item_event("added", item, previous))
        self._context.emit(server.item_event("done", item, previous))


def _marks(speech_ended_at: float, request: EndOfTurnRequest) -> Marks:
    """Return the stage times of a turn that is not transcribed yet: Stage.SILENCE, and the start of Stage.STT.

    `speech_ended_at` is the monotonic time at which the caller's last speech arrived.
    """
    marks = Marks()
    marks.start(Stage.SILENCE, speech_ended_at)
    marks.end(Stage.SILENCE, request.started_at)
    marks.start(Stage.STT, request.started_at)
    return marks


def _ms(samples: int) -> int:
    return round(samples * 1000 / STT_RATE)
