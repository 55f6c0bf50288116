"""Tests of what `rejoinder serve` checks before it starts Ray."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.doctor.machine import needed_models
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
