"""Settings that limit what one client may send, store and occupy."""

from __future__ import annotations

from pydantic import Field

from rejoinder.core.settings.section import Count, Positive, Section


class LimitSettings(Section):
    """Limits of each connection, session and host (docs/explanation/security.md).

    A client that sends faster than it may is slowed down: its connection is not read meanwhile. Only messages that are
    too large, floods of control frames, and events that are not read end a connection.
    """

    message_bytes: int = Field(262_144, ge=4096, le=16_777_216)
    """Maximum size of a message that is not audio, in bytes. A larger one ends the connection (close code 1009) before
    it is read: reading and checking JSON takes 1 ms for 10 kB of small values.
    """
    audio_message_bytes: int = Field(16_777_216, ge=65_536, le=33_554_432)
    """Maximum size of an `input_audio_buffer.append` message, in bytes of its JSON text."""
    messages_per_s: Positive = 250.0
    """Messages (and fragments of messages) a second of one connection. A caller sends 50 audio messages a second."""
    message_burst: Count = 3000
    """Messages that a connection may send at once: a minute of audio in messages of 20 ms."""
    message_bytes_per_s: Positive = 262_144.0
    """Bytes a second that one connection may send in messages without audio, and get in the answers to them."""
    message_bytes_burst: Count = 4_194_304
    """Bytes of messages without audio, and of the answers to them, that a connection may cause at once."""
    host_message_bytes_per_s: Positive = 2_097_152.0
    """Bytes a second of messages without audio, and of the answers to them, of all connections of a host. While they
    are used up, connections that have caused more than 128 kB, or more than 16 kB a second, are not read.
    """
    host_message_bytes_burst: Count = 8_388_608
    """Bytes of such messages and answers that the connections of a host may cause at once."""
    audio_bytes_per_s: Positive = 1_048_576.0
    """Bytes a second that one connection may send in audio messages. PCM in real time takes 64 kB a second."""
    audio_bytes_burst: Count = 25_165_824
    """Bytes of audio messages that a connection may send at once."""
    control_frames_per_s: Positive = 10.0
    """Pings and other control frames a second of one connection. More end it (close code 1008)."""
    control_frame_burst: Count = 100
    """Control frames that a connection may send at once."""
    unsent_bytes: int = Field(2_097_152, ge=65_536, le=268_435_456)
    """Maximum size of the events that wait to be sent to one client, in bytes. A client that reads too slowly is
    disconnected.
    """
    unread_s: Positive = 10.0
    """Seconds after which a client that reads nothing is disconnected, if an event waits for it."""
    conversation_bytes: int = Field(2_097_152, ge=65_536, le=268_435_456)
    """Maximum size of the texts of one conversation, in bytes. Items of the client that exceed it are refused
    (`conversation_too_large`).
    """
    host_bytes: int = Field(536_870_912, ge=1_048_576)
    """Maximum size of what all clients of a host make it keep, in bytes: their items, events that wait to be sent,
    messages that arrive, and audio above `host.audio_ring_s` that waits for a commit.
    """
    first_event_s: Positive = 30.0
    """Seconds after which a session ends that has had no event and no audio since it began."""
    idle_s: Positive = 600.0
    """Seconds without any event or audio of the client after which a session ends."""
