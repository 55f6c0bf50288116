"""Tests that the application is one that Ray Serve's own commands accept."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import yaml
from ray.serve import Application
from ray.serve.schema import ServeDeploySchema

from deployments.app import app, build, host_deployment
from rejoinder.core.settings.settings import Settings
from tests.test_structure import ROOT


def test_serve_build_describes_the_default_application(tmp_path: Path) -> None:
    """`serve build deployments.app:app` needs no cluster and writes a valid Serve configuration of the defaults."""
    output = tmp_path / "serve.yaml"
    # No cluster listens at this address: the command would fail if it connected to one.
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "RAY_ADDRESS": "127.0.0.1:1"}
    command = [sys.executable, "-m", "ray.serve.scripts", "build", "deployments.app:app", "-o", str(output)]
    subprocess.run(command, env=environment, cwd=tmp_path, check=True, timeout=110)
    written = ServeDeploySchema.model_validate(yaml.safe_load(output.read_text(encoding="utf-8")))
    (application,) = written.applications
    assert application.import_path == "deployments.app:app"
    replicas = {deployment.name: deployment.num_replicas for deployment in application.deployments}
    assert replicas == {"SessionHost": 1, "TurnDetector": 1, "Stt": 1, "Llm": 2, "Tts": 1}
    host = next(deployment for deployment in application.deployments if deployment.name == "SessionHost")
    assert host.graceful_shutdown_timeout_s == Settings().host.graceful_shutdown_timeout_s


def test_the_default_application_is_the_one_without_arguments() -> None:
    """`app` and `build({})` are Serve applications, which `serve run` and `serve deploy` require."""
    assert isinstance(app, Application)
    assert isinstance(build({}), Application)


def test_single_stages_do_not_take_the_places_of_calls() -> None:
    """Serve lets a host have all its calls and all its requests to single stages at the same time."""
    settings = Settings.model_validate({"host": {"max_sessions": 50}, "stage_http": {"chats": 100}})
    most = settings.stage_http.transcriptions + settings.stage_http.speeches + 100
    assert host_deployment(settings).max_ongoing_requests >= 50 + most
