"""Transcription deltas: the words of a turn that the client gets while the caller still speaks.

A delta cannot be taken back, so only words that two interim transcripts in a row have in common are sent
(`local_agreement`). Words of an utterance that may be no turn are held back: speech over a reply, until it is known to
be addressed to the agent. The final transcript is sent as a whole in any case, and is the one that counts.
"""

from __future__ import annotations

from collections.abc import Callable

from actors.stages.session_context import SessionContext
from rejoinder.core.turns.local_agreement import StreamedText
from rejoinder.core.turns.state import BargeInCheck, TurnState
from rejoinder.core.wire import server


class TranscriptDeltas:
    """Deltas of the caller's current utterance. Call `begin`, then `advance` for its stable words, then `end`."""

    def __init__(self, context: SessionContext, state: Callable[[], TurnState]) -> None:
        """Create it; `state` returns the state of the turn machine."""
        self._context = context
        self._state = state
        self._item_id: str | None = None
        self._sent = StreamedText()

    @property
    def wanted(self) -> bool:
        """True if the client gets transcripts."""
        return self._context.config.sends_transcripts

    def begin(self, item_id: str) -> None:
        """Start the deltas of the utterance that will become the item `item_id`."""
        self._item_id, self._sent = item_id, StreamedText()

    def advance(self, stable: tuple[str, ...]) -> None:
        """Send the words that have become stable. `stable` has all stable words of the utterance."""
        checked = self._state().barge_in_check is BargeInCheck.NOT_NEEDED
        if self._item_id is None or not checked or not self.wanted:
            return
        self._sent, delta = self._sent.grown(stable)
        if delta:
            self._context.emit(server.transcription_delta(self._item_id, delta))

    def end(self) -> StreamedText:
        """End the deltas of the utterance, and return the words that were sent."""
        sent, self._item_id, self._sent = self._sent, None, StreamedText()
        return sent
