"""Handling of client events: configuration, conversation items, audio commits and responses.

Every handler carries out one client event, or raises CallerError before it has changed anything. Event names, error
codes and limits are those of OpenAI's Realtime API
(https://platform.openai.com/docs/api-reference/realtime-client-events).
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from actors.replying.replies import MAX_OUT_OF_BAND
from actors.replying.requests import ReplyRequest, SpokenItem
from actors.stages.session_context import SessionContext
from actors.turn_taking.keypad import ENTRY_BYTES, Keypad
from rejoinder.core.audio.pcm import STT_RATE
from rejoinder.core.errors import CallerError
from rejoinder.core.reply.prompt_window import ChatMessage
from rejoinder.core.reply.tools.calls import ToolOffer
from rejoinder.core.turns import events as turn_events
from rejoinder.core.turns.state import CallerState
from rejoinder.core.wire import client, server
from rejoinder.core.wire import session as wire_session
from rejoinder.core.wire.fields import Fields, Json, refuse
from rejoinder.core.wire.formats import parse_format
from rejoinder.core.wire.items import MAX_ITEMS, Conversation, parse_item
from rejoinder.core.wire.mcp_tools import mcp_requests
from rejoinder.core.wire.unserved import left_out, refuse_unserved

if TYPE_CHECKING:
    from actors.session import Session

# Minimum length, in seconds, of the audio that an input_audio_buffer.commit commits. OpenAI refuses a shorter commit.
MIN_COMMIT_S = 0.1
# A conversation.item.truncate up to this many ms after the end of the audio counts as a truncation at its end, because
# a client's playback clock may run fast.
TRUNCATE_SLACK_MS = 500
# OpenAI's limits on metadata: number of pairs, characters of a key, characters of a value.
METADATA_PAIRS, METADATA_KEY, METADATA_VALUE = 16, 64, 512


class ClientEventHandler:
    """Handles the client events of one session, on the session's event loop."""

    def __init__(self, session: Session, context: SessionContext, expires_at: int | None = None) -> None:
        """Create the handler.

        Args:
            session: The session.
            context: Its identity, conversation, wire and services.
            expires_at: Unix time in seconds at which the session expires; None for its longest time from now. It is
                only reported to the client; the transport ends the session by its own timer.
        """
        self._session = session
        self._context = context
        lifetime_s = context.services.settings.host.session_max_s
        self._expires_at = int(time.time() + lifetime_s) if expires_at is None else expires_at
        # True if the newest item of the client was the result of no call, and was refused.
        self._orphan_result = False
        self._keypad = Keypad(context, lambda: session.replies.cancel(None), self._keys_entered)
        # Bytes of the conversation that are counted in `Services.stored`.
        self._counted = 0

    def announce_session(self, offer: Json | None = None) -> None:
        """Send session.created, the first event of every session.

        `offer` is the part of the event that lets the client resume the session (`server.resume_offer`).
        """
        self._count()
        self._context.emit(server.session_event("created", self._echo()) | (offer or {}))

    def handle(self, event: client.ClientEvent, received: int) -> None:
        """Handle one client event.

        Args:
            event: The event.
            received: Number of samples of the caller's audio (16 kHz) that arrived before the event.

        Raises:
            CallerError: The event is refused; nothing has changed.
        """
        match event:
            case client.UpdateSession(session=patch, event_id=event_id):
                self._update(patch, event_id)
            case client.CommitAudio():
                self._commit(received)
            case client.ClearAudio():
                self._session.clear(received)
                self._context.emit(server.cleared())
            case client.CreateItem(item=fields, previous_item_id=previous, clip=clip):
                self._create_item(fields, previous, clip)
            case client.DeleteItem(item_id=item_id):
                self._context.conversation.delete(item_id)
                self._count()
                self._context.emit(server.deleted(item_id))
            case client.RetrieveItem(item_id=item_id):
                item = self._context.conversation.get(item_id, code="item_retrieve_invalid_item_id")
                self._context.emit(server.retrieved(item))
            case client.TruncateItem(item_id=item_id, audio_end_ms=end_ms):
                self._truncate(item_id, end_ms)
            case client.CreateResponse(response=fields):
                self._create_response(fields)
            case client.ClearOutput():
                self._clear_output()
            case client.Ping():
                self._context.emit(server.pong())
            case client.PressKey(digit=digit):
                self._check_room(ENTRY_BYTES)
                self._keypad.press(digit)
            case client.CancelResponse(response_id=response_id):
                if not self._session.replies.cancel(response_id):
                    raise CallerError(
                        "Cancellation failed: no active response found.", code="response_cancel_not_active"
                    )

    def close(self) -> None:
        """Release the memory that the session's conversation was counted for."""
        self._keypad.close()
        self._context.services.stored.release(self._counted)
        self._counted = 0

    def _keys_entered(self) -> None:
        """Answer the keys that the caller has pressed, unless the caller speaks or the client asks for replies."""
        self._count()
        session = self._session
        if session.state.caller is CallerState.QUIET and self._context.turn_rules.auto_reply:
            session.replies.cancel(None)
            session.request_reply(session.replies.default_request())

    def _count(self) -> None:
        """Count the present size of the conversation among the bytes that the host's clients make it keep."""
        size = self._context.conversation.size
        self._context.services.stored.release(self._counted - size)
        self._counted = size

    def _echo(self) -> Json:
        return wire_session.echo(self._context.config, self._context.id, self._expires_at)

    def _update(self, patch: Fields, event_id: str | None) -> None:
        unserved = left_out(patch)
        self._context.current.value = wire_session.merge(
            self._context.config,
            patch,
            voice_locked=self._session.replies.recent.spoken,
            type_locked=bool(len(self._context.conversation)),
        )
        if "tools" in patch and not self._context.config.transcribes_only:
            unserved += self._request_servers(patch)
        self._session.configured()
        self._context.emit(server.session_event("updated", self._echo()))
        for fault in unserved:
            self._session.reject(fault, event_id)

    def _request_servers(self, patch: Fields) -> list[CallerError]:
        """Request the MCP servers among the tools of a session.update. Return an error for each one that is refused."""
        servers = self._context.services.tool_servers
        requests, faults = mcp_requests(
            patch.items("tools", wire_session.MAX_TOOLS),
            lambda label, url: servers.requested(label, url) is not None,
        )
        tools = tuple(request.wire() for request in requests)
        self._context.current.value = replace(self._context.config, mcp=tools)
        self._context.server_tools.request(requests)
        return faults

    def _commit(self, received: int) -> None:
        if received - self._session.state.start < MIN_COMMIT_S * STT_RATE:
            raise CallerError(
                "The input audio buffer holds less than 100 ms.",
                "Append audio before you commit it.",
                code="input_audio_buffer_commit_empty",
            )
        self._session.step(turn_events.CommitRequested(received))

    def _check_room(self, size: int) -> None:
        """Raise CallerError if the conversation may not have a further item of `size` bytes."""
        conversation = self._context.conversation
        if len(conversation) >= MAX_ITEMS:
            raise refuse(f"The conversation has {MAX_ITEMS} items already.", "item", remedy="Delete items first.")
        limit = self._context.services.settings.limits.conversation_bytes
        if conversation.size + size > limit:
            raise refuse(
                f"The conversation would have more than {limit} bytes.",
                "item",
                code="conversation_too_large",
                remedy="Delete items first.",
            )
        if not self._context.services.stored.room(size):
            raise refuse(
                "The conversations of this host take all the memory that they may.",
                "item",
                code="host_memory_full",
                remedy="Delete items, or try again later.",
            )

    def _create_item(self, fields: Fields, previous: str | None, clip: bytes) -> None:
        conversation = self._context.conversation
        item = parse_item(fields, self._context.stamp("item"), clip=bool(clip))
        if clip and (fault := self._session.clips.refusal(clip)):
            raise fault
        self._check_room(item.size)
        self._orphan_result = True
        conversation.check_result(item)
        self._orphan_result = False
        before = conversation.insert(item, previous)
        self._count()
        self._context.emit(server.item_event("added", item, before, from_client=True))
        self._context.emit(server.item_event("done", item, before, from_client=True))
        if clip:
            self._session.replies.expect_transcript(SpokenItem(item, self._session.clips.transcribe(clip)))
        if item.type == "function_call_output" and not conversation.open_calls:
            self._session.replies.read_ahead(whole=True)  # a response.create for the results usually follows

    def _truncate(self, item_id: str, end_ms: int) -> None:
        conversation: Conversation = self._context.conversation
        item = conversation.get(item_id)
        if item.role != "assistant" or not item.spoken:
            raise refuse("Only spoken assistant items can be truncated.", "item_id", remedy="Name an assistant item.")
        heard = self._session.replies.recent.heard(item_id, end_ms / 1000)
        if heard is None and not item.audio_ms:
            raise refuse("The item has no audio of this server.", "item_id", remedy="Name an item of a response.")
        text, length_ms = heard or (conversation.shortened(item_id, end_ms), item.audio_ms)
        if end_ms > length_ms + TRUNCATE_SLACK_MS:
            raise refuse(
                f"audio_end_ms {end_ms} lies beyond the item's {length_ms} ms.",
                "audio_end_ms",
                remedy="Send how much of it was played.",
            )
        self._session.replies.truncated(item_id, end_ms / 1000)
        conversation.truncate(item_id, text, end_ms)
        self._context.emit(server.truncated(item_id, end_ms))

    def _clear_output(self) -> None:
        """Stop the reply that is being heard, and drop its audio."""
        output = self._context.output
        if output is None:
            raise refuse(
                "output_audio_buffer.clear works over WebRTC only.",
                "type",
                code="unsupported_event",
                remedy="Over WebSocket, drop your own playback buffer and send conversation.item.truncate.",
            )
        if self._session.replies.audible:
            self._session.replies.cancel(None)
        output.stop(None)

    def _create_response(self, fields: Fields) -> None:
        if self._context.config.transcribes_only:
            raise refuse(
                "A session of type transcription has no responses.",
                "type",
                code="unsupported_event",
                remedy="Open a session of type realtime.",
            )
        request = self._reply_request(fields)
        orphan, self._orphan_result = self._orphan_result, False
        if orphan and request.prompt is None and not fields.raw("instructions"):
            raise refuse(
                "The function result before belongs to no call and was refused, so nothing is to be answered.",
                "type",
                code="invalid_call_id",
                remedy="Send the result with the call_id of a function_call item first.",
            )
        replies = self._session.replies
        if request.out_of_band:
            if replies.out_of_band_count >= MAX_OUT_OF_BAND:
                raise CallerError(
                    f"{MAX_OUT_OF_BAND} responses outside the conversation are active.",
                    "Wait for one to finish.",
                    code="rate_limit_exceeded",
                )
            replies.start(request)
            return
        if self._session.busy:
            raise CallerError(
                "Conversation already has an active response in progress.",
                "Wait until it is finished, or cancel it.",
                code="conversation_already_has_active_response",
            )
        self._session.request_reply(request)

    def _reply_request(self, fields: Fields) -> ReplyRequest:
        """Return the reply request of the session's configuration, changed by the fields of a response.create."""
        replies = self._session.replies
        request = replies.default_request()
        refuse_unserved(fields)
        refused = wire_session.refused_tools(fields)
        if refused:
            raise refused[0]
        if {"tools", "tool_choice", "parallel_tool_calls", "max_output_tokens"} & fields.keys():
            request = replace(request, tools=self._offer(fields))
        if "output_modalities" in fields:
            request = replace(request, spoken=wire_session.modality(fields) == "audio")
        if fields.raw("instructions"):
            request = replace(request, instructions=fields.text("instructions"))
        if "max_output_tokens" in fields:
            limited = replace(self._context.config, max_output_tokens=wire_session.max_tokens(fields))
            default = self._context.services.settings.conversation.max_reply_tokens
            request = replace(request, max_tokens=limited.token_limit(default))
        if fields.raw("audio") is not None:
            output = fields.child("audio").child("output")
            voice = wire_session.voice_of(output, self._context.config.voice, locked=replies.recent.spoken)
            request = replace(request, format=parse_format(output, request.format), voice=voice)
        if fields.raw("metadata") is not None:
            request = replace(request, metadata=_metadata(fields.child("metadata")))
        if fields.raw("conversation") is not None:
            request = replace(request, out_of_band=fields.choice("conversation", ("auto", "none")) == "none")
        if request.out_of_band:  # this system calls tools for the conversation only, which has their results
            request = replace(request, tools=request.tools.of_client())
        if fields.raw("input") is not None:
            request = replace(request, prompt=self._input(fields))
        return request

    def _offer(self, fields: Fields) -> ToolOffer:
        """Return the tools of the session's configuration, changed by the fields of a response.create."""
        config = wire_session.merge_tools(self._context.config, fields)
        if "max_output_tokens" in fields:
            config = replace(config, max_output_tokens=wire_session.max_tokens(fields))
        return self._context.offer(config)

    def _input(self, fields: Fields) -> tuple[ChatMessage, ...]:
        """Return the messages of the field `input`, which replace the conversation in the prompt.

        An item reference in `input` is replaced by that item of the conversation.
        """
        scratch = Conversation()
        for number, entry in enumerate(fields.items("input", 200)):
            if entry.raw("type") == "item_reference":
                scratch.insert(self._context.conversation.get(entry.text("id")))
            else:
                scratch.insert(parse_item(entry, f"input_{number}"))
        return tuple(scratch.messages())


def _metadata(fields: Fields) -> Json:
    pairs = fields.as_dict()
    if len(pairs) > METADATA_PAIRS:
        raise refuse(f"metadata has {len(pairs)} pairs.", fields.path, remedy=f"Send at most {METADATA_PAIRS}.")
    for key in pairs:
        if len(key) > METADATA_KEY:
            raise refuse(f"A metadata key is longer than {METADATA_KEY} characters.", fields.path)
        fields.text(key, limit=METADATA_VALUE)
    return pairs
