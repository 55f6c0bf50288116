"""Opens the keeper of a host's sessions, as the settings say."""

from __future__ import annotations

import os
from collections.abc import Callable

from actors.stages.ports import Metrics
from actors.survival.session_keeper import SessionKeeper
from actors.survival.snapshot_store import SnapshotStore
from deployments.survival.encryption import SnapshotCipher
from deployments.survival.ray_journals import RayJournals
from rejoinder.core.errors import ConfigError
from rejoinder.core.settings.settings import JournalSettings, Settings
from rejoinder.core.survival.resume_token import token_key


def open_store(settings: JournalSettings, application: str, holder: str, metrics: Metrics) -> SnapshotStore:
    """Return the store of a host in a Ray cluster: Redis, if the settings name one, otherwise the nodes' journals.

    Args:
        settings: Section `journal`.
        application: Name of the Serve application.
        holder: Name of the host.
        metrics: Receiver of measurements.

    Raises:
        ConfigError: The settings name a Redis server, and the package `redis` is not installed.
    """
    if not settings.redis_url:
        return RayJournals(application, holder=holder, settings=settings, metrics=metrics)
    try:
        from deployments.survival.redis_snapshots import RedisSnapshots  # imported here, because redis is optional
    except ImportError:
        remedy = "Run `pip install -e '.[redis]'` in the checkout."
        raise ConfigError("the package redis is not installed.", remedy, field="args.journal.redis_url") from None
    return RedisSnapshots(application, holder=holder, settings=settings)


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
