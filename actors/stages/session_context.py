"""Objects that the parts of one session share: its ids, conversation, function to send, services and configuration."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from actors.stages.ports import AudioOutput
from actors.stages.server_tools import SessionTools, ToolChannel
from actors.stages.services import Services
from rejoinder.core.reply.tools.calls import ToolOffer
from rejoinder.core.turns.state import TurnRules
from rejoinder.core.wire.fields import Json
from rejoinder.core.wire.items import Conversation
from rejoinder.core.wire.server import IdStamp
from rejoinder.core.wire.session import SessionConfig


@dataclass(slots=True)
class CurrentConfig:
    """Holder of the session's configuration, which a session.update replaces.

    Only `ClientEventHandler` assigns `value`. Everything else reads `SessionContext.config` when it needs a setting.
    """

    value: SessionConfig


@dataclass(frozen=True, slots=True)
class SessionContext:
    """Identity, conversation, wire and services of one session.

    Attributes:
        id: The session's id on the wire: "sess_" and the key of the connection.
        tenant: Digest of the API key (`answer_cache.tenant_of`), "" if there are no keys. Only
            sessions of one tenant share cached answers.
        conversation: The items of the conversation.
        stamp: Makes the ids of events, items and responses.
        emit: Adds an event_id to a server event and sends it. It never blocks.
        services: The services that all sessions of the host share.
        current: Holder of the configuration in effect.
        server_tools: The tools that this system calls.
        changed: Called if the conversation has changed without an event that tells of it.
        output: Plays the audio of replies in real time; None if the client does, which gets it in events.
    """

    id: str
    tenant: str
    conversation: Conversation
    stamp: IdStamp
    emit: Callable[[Json], None]
    services: Services
    current: CurrentConfig
    server_tools: SessionTools
    changed: Callable[[], None] = lambda: None
    output: AudioOutput | None = None

    @classmethod
    def create(
        cls,
        key: str,
        services: Services,
        send: Callable[[Json], None],
        config: SessionConfig,
        *,
        tenant: str = "",
        resumed: int = 0,
        changed: Callable[[], None] = lambda: None,
        output: AudioOutput | None = None,
    ) -> SessionContext:
        """Return the context of a new session with an empty conversation.

        Args:
            key: Makes the session's ids unique on the host.
            services: The services that all sessions of the host share.
            send: Called with each server event, which has its event_id. It must not block.
            config: The configuration to start with.
            tenant: Digest of the API key; "" if there are no keys.
            resumed: How often the session was resumed. Its new ids contain the number, so that they differ from those
                that the hosts before have made.
            changed: Called if the conversation has changed without an event that tells of it.
            output: Plays the audio of replies; None if the client does.
        """
        stamp = IdStamp(f"{key}r{resumed}" if resumed else key)

        def emit(event: Json) -> None:
            send({"event_id": stamp("event"), **event})

        conversation = Conversation()
        channel = ToolChannel(conversation, emit, stamp, changed)
        return cls(
            f"sess_{key}",
            tenant=tenant,
            conversation=conversation,
            stamp=stamp,
            emit=emit,
            services=services,
            current=CurrentConfig(config),
            server_tools=SessionTools(services.tool_servers, channel, services.metrics),
            changed=changed,
            output=output,
        )

    @property
    def config(self) -> SessionConfig:
        """The configuration in effect."""
        return self.current.value

    def offer(self, config: SessionConfig) -> ToolOffer:
        """Return the tools of a reply with this configuration: the client's, and those that this system calls."""
        own = [str(tool["name"]) for tool in config.tools]
        return config.offer(self.services.settings.tools.max_call_tokens, self.server_tools.offered(own))

    @property
    def turn_rules(self) -> TurnRules:
        """The rules of turn taking in effect now, as the client and the operator configured them."""
        config, settings = self.config, self.services.settings
        detection = config.detection
        if config.transcribes_only:
            detection = replace(detection, create_response=False, interrupt_response=False)
        return TurnRules(
            detection,
            self.services.endpoint_rule,
            settings.speech.max_utterance_s,
            drafts=settings.speculation.enabled and config.output_modality == "audio" and not config.transcribes_only,
            barge_in=settings.barge_in,
            min_speech_ms=settings.speech.min_speech_ms,
            announces_words=settings.barge_in.announces_words(config.drops_replies),
        )
