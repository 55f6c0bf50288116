"""Contract test of `start_local_ray`: where a Ray head listens that is alone."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import ray
from ray._private import ray_constants, services

from deployments.serving import compat


def test_ray_alone_uses_the_loopback_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """A head that is alone has the loopback address as the node's address, from which Ray derives where it listens."""
    started: dict[str, Any] = {}
    monkeypatch.setattr(ray, "init", lambda **options: started.update(options))
    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.setattr(ray_constants, "ENABLE_RAY_CLUSTER", True)
    compat.start_local_ray(Path("/tmp/x"), alone=True)
    assert services.get_node_ip_address() == "127.0.0.1"
    assert os.environ[ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR] == "0"
    assert "alone" not in started
