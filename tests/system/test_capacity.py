"""Test of a capacity prediction: one row of docs/results/capacity.md is measured again on a real deployment."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROW = "slots"
ATTEMPTS = 2


@pytest.mark.ray
@pytest.mark.timed
@pytest.mark.models
@pytest.mark.timeout(400)
def test_a_predicted_row_is_measured_within_its_bounds(tmp_path: Path) -> None:
    """The measured values are within the bounds of the prediction from the calibration in docs/results/capacity.

    The bounds are 10% for the knee (the largest load that is within the limit) and 25% for the p95. If the load
    generator fails its check of itself, the row is measured once more.
    """
    for name in ("calibration.json", f"predicted-{ROW}.json"):
        shutil.copy(ROOT / "docs" / "results" / "capacity" / name, tmp_path / name)
    command = [sys.executable, "-m", "rejoinder.cli", "bench", "capacity", "--out", str(tmp_path), "--rows", ROW]
    command += ["--repeats", "1", "--for", "25", "--json", str(tmp_path / "rows.json")]
    for _ in range(ATTEMPTS):
        run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=190, check=False)
        if "invalid load generator" not in run.stderr:
            break
    assert (tmp_path / "rows.json").exists(), run.stdout + run.stderr
    found = json.loads((tmp_path / "rows.json").read_text())[0]
    assert found["predicted"] == json.loads(
        (ROOT / "docs" / "results" / "capacity" / f"predicted-{ROW}.json").read_text()
    )
    assert found["holds"], run.stdout
