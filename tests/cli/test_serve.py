"""Tests of what `rejoinder serve` checks before it starts Ray."""

from __future__ import annotations

import os
import resource
import stat
from pathlib import Path
from typing import Any

import pytest
import ray

from cluster import launch
from cluster.doctor.machine import needed_models
from deployments.serving import compat
from rejoinder.cli.serve import serve
from rejoinder.core.errors import ConfigError
from rejoinder.core.settings.serve_file import ServeFile


def test_missing_weights_are_named_before_anything_is_started(tmp_path: Path) -> None:
    """If models are not in the store, one error names all of them and the command that fetches them."""
    config = tmp_path / "ray_config.yaml"
    config.write_text(f"applications: [{{args: {{models: {{directory: {tmp_path / 'store'}}}}}}}]", encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        serve(config)
    names = " ".join(needed_models(ServeFile()))
    assert caught.value.field == "args.models"
    assert names in caught.value.message
    assert f"rejoinder models pull {names}" in caught.value.remedy


def _document(folder: Path, host: str) -> Path:
    """Write a configuration that listens on `host` and whose model store is empty, and return its path."""
    config = folder / "ray_config.yaml"
    config.write_text(
        f"http_options: {{host: {host}}}\napplications: [{{args: {{models: {{directory: {folder / 'store'}}}}}}}]",
        encoding="utf-8",
    )
    return config


@pytest.mark.parametrize("host", ["0.0.0.0", "10.0.0.1", "voice.example"])
def test_other_machines_need_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    """Without keys, an address that other machines reach is refused before anything starts, unless --insecure is given.

    With a key, or with --insecure, the next check is the one that fails.
    """
    config = _document(tmp_path, host)
    monkeypatch.delenv("REJOINDER_API_KEYS", raising=False)
    with pytest.raises(ConfigError) as caught:
        serve(config)
    assert caught.value.field == "http_options.host"
    assert "--insecure" in caught.value.remedy
    with pytest.raises(ConfigError, match="models are missing"):
        serve(config, insecure=True)
    monkeypatch.setenv("REJOINDER_API_KEYS", "alpha")
    with pytest.raises(ConfigError, match="models are missing"):
        serve(config)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "localhost"])
def test_the_machine_itself_needs_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    """A server that only programs of the same machine reach needs no key."""
    monkeypatch.delenv("REJOINDER_API_KEYS", raising=False)
    with pytest.raises(ConfigError, match="models are missing"):
        serve(_document(tmp_path, host))


def test_an_empty_list_of_keys_starts_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable of keys that contains only a comma stops the start: it must not admit everybody."""
    monkeypatch.setenv("REJOINDER_API_KEYS", ",")
    with pytest.raises(ConfigError, match="REJOINDER_API_KEYS: there is no key"):
        serve(_document(tmp_path, "127.0.0.1"))


def test_other_users_cannot_enter_the_folder_of_a_node(monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder with HAProxy's admin socket and Ray's logs stays closed to others, though Ray opens its own folder."""
    folders: list[Path] = []

    def start(temp_dir: Path, **_: Any) -> None:
        temp_dir.mkdir(parents=True, exist_ok=True)
        temp_dir.chmod(0o777)  # as Ray does
        folders.append(temp_dir)

    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.setattr(compat, "start_local_ray", start)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    with launch.cluster("local"):
        socket = Path(os.environ["RAY_SERVE_HAPROXY_SOCKET_PATH"])
        for path in (folders[0], socket):
            closed = [p for p in path.parents if p.exists() and p.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO) == 0]
            assert closed, path
    assert not folders[0].parent.exists()


def test_too_few_open_files_are_refused_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a hard limit of 256 open files, the start ends with the limit and the fix, and not in a traceback of Ray."""
    monkeypatch.delenv("REJOINDER_API_KEYS", raising=False)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 256))
    with pytest.raises(ConfigError, match="only 256 files may be open") as caught:
        serve(_document(tmp_path, "127.0.0.1"))
    assert "ulimit -Hn" in caught.value.remedy
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 4096))
    with pytest.raises(ConfigError, match="models are missing"):
        serve(_document(tmp_path, "127.0.0.1"))
