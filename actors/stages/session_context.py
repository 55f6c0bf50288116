"""What the collaborators of one session share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from actors.stages.services import Services
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
        id: The session's wire id, "sess_" and the key of the connection.
        tenant: Digest of the API key (`answer_cache.tenant_of`), "" without keys. Tenants share no cached answers.
        conversation: The items of the conversation.
        stamp: Makes the ids of events, items and responses.
        emit: Sends a server event, stamped with its event_id. It never blocks.
        services: What all sessions of the host share.
        current: Holds the configuration in effect.
    """

    id: str
    tenant: str
    conversation: Conversation
    stamp: IdStamp
    emit: Callable[[Json], None]
    services: Services
    current: CurrentConfig

    @classmethod
    def create(
        cls, key: str, services: Services, send: Callable[[Json], None], config: SessionConfig, *, tenant: str = ""
    ) -> SessionContext:
        """Return the context of a new session with an empty conversation.

        Args:
            key: Makes the session's ids unique on the host.
            services: What all sessions of the host share.
            send: Takes the stamped server events. It must not block.
            config: The configuration to start with.
            tenant: See `SessionContext`.
        """
        stamp = IdStamp(key)

        def emit(event: Json) -> None:
            send({"event_id": stamp("event"), **event})

        return cls(
            f"sess_{key}",
            tenant=tenant,
            conversation=Conversation(),
            stamp=stamp,
            emit=emit,
            services=services,
            current=CurrentConfig(config),
        )

    @property
    def config(self) -> SessionConfig:
        """The configuration in effect."""
        return self.current.value

    @property
    def turn_rules(self) -> TurnRules:
        """What the client and the operator configured about turns, in effect now."""
        config, settings = self.config, self.services.settings
        return TurnRules(
            config.detection,
            settings.endpointing,
            settings.speech.max_utterance_s,
            drafts=settings.speculation.enabled and config.output_modality == "audio",
            barge_in=settings.barge_in,
            min_speech_ms=settings.speech.min_speech_ms,
        )
