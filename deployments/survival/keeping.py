"""Opens the keeper of a host's sessions, as the settings say."""

from __future__ import annotations

import os
from collections.abc import Callable

from actors.stages.ports import Metrics
from actors.survival.session_keeper import SessionKeeper
from actors.survival.snapshot_store import SnapshotStore
from deployments.survival.encryption import SnapshotCipher
from rejoinder.core.settings.settings import Settings
from rejoinder.core.survival.resume_token import token_key


def open_keeper(
    settings: Settings, store: SnapshotStore, metrics: Metrics, clock: Callable[[], float], *, signing_key: str = ""
) -> SessionKeeper | None:
    """Return the keeper of a host's sessions; None if `journal.enabled` is false.

    Args:
        settings: Settings of the host.
        store: Where the sessions are kept.
        metrics: Receiver of measurements.
        clock: Returns the monotonic time, in seconds.
        signing_key: The signing key of client secrets, if it is not in the settings.
    """
    journal = settings.journal
    if not journal.enabled:
        return None
    secret = signing_key or settings.access.signing_key
    key = os.environ.get(journal.key_env, "") or journal.key
    return SessionKeeper(
        store,
        metrics,
        clock,
        session_s=settings.host.session_max_s,
        keep_s=journal.keep_s,
        signing_key=token_key(secret) if secret else "",
        cipher=SnapshotCipher(key) if key else None,
    )
