"""Tests of the second language model (`llm_backup`): its deployment, and the queue lengths of replicas."""

from __future__ import annotations

from typing import Any

import pytest

from deployments.app import build
from deployments.serving.placements import note_queues, shortest_queue
from rejoinder.core.errors import ConfigError


def deployments_of(args: dict[str, Any]) -> set[str]:
    """Return the names of the deployments in the application that is built from these settings."""
    application = build(args)
    host = application._bound_deployment
    handles = host.init_args[1]
    return {host.name, *(bound._bound_deployment.name for bound in handles.values())}


def test_a_second_backend_is_a_deployment_of_its_own() -> None:
    """The section `llm_backup` is deployed as LlmBackup. Without it there is no such deployment."""
    assert "LlmBackup" not in deployments_of({})
    backup = {"engine": "openai_api", "base_url": "http://127.0.0.1:9/v1", "model": "other"}
    assert {"Llm", "LlmBackup"} <= deployments_of({"llm_backup": backup})


def test_a_backends_bad_setting_is_named() -> None:
    """The error of an invalid setting of the second language model names its section, `llm_backup`."""
    with pytest.raises(ConfigError, match=r"llm_backup"):
        build({"llm_backup": {"engine": "openai_api"}})


def test_the_shortest_queue_ignores_avoided_replicas() -> None:
    """`shortest_queue` returns the shortest queue length of a deployment's replicas that are not avoided.

    It returns None if all replicas are avoided or the deployment is unknown.
    """
    note_queues("Somewhere", {"a": 4, "b": 2, "c": 7})
    assert shortest_queue("Somewhere", frozenset()) == 2
    assert shortest_queue("Somewhere", frozenset({"b"})) == 4
    assert shortest_queue("Somewhere", frozenset({"a", "b", "c"})) is None
    assert shortest_queue("Elsewhere", frozenset()) is None
