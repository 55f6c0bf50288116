"""Tests of the audit of locked packages and of the bill of materials."""

from __future__ import annotations

import json
import re
import runpy
import subprocess
import sys
from pathlib import Path

import yaml
from packaging.version import Version

ROOT = Path(__file__).parents[1]
AUDIT = runpy.run_path(str(ROOT / "scripts/audit/__main__.py"), run_name="audit")
ADVISORIES = yaml.safe_load((ROOT / "scripts/audit/advisories.yaml").read_text(encoding="utf-8"))


def test_no_locked_package_has_a_known_fault() -> None:
    """The script that checks constraints.txt against the list of advisories finds nothing."""
    done = subprocess.run([sys.executable, "scripts/audit"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_old_version_is_reported() -> None:
    """A version just below a fix is reported with the advisory's id and the fixed version, and the fixed one is not."""
    found = list(AUDIT["faults"]({"h11": Version("0.14.0"), "starlette": Version("0.49.1")}, ADVISORIES))
    assert len(found) == 1
    assert "CVE-2025-43859" in found[0]
    assert "0.16.0" in found[0]


def test_each_advisory_is_about_a_locked_package() -> None:
    """Every advisory names a package that constraints.txt locks. Otherwise its name is misspelt, or it can go."""
    assert {advisory["package"] for advisory in ADVISORIES} <= AUDIT["locked"]().keys()


def test_the_bill_of_materials_is_complete() -> None:
    """The bill lists each locked package with its version, and each file of each model with its SHA-256, once."""
    done = subprocess.run([sys.executable, "scripts/sbom"], cwd=ROOT, capture_output=True, text=True, check=True)
    bill = json.loads(done.stdout)
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    references = [component["bom-ref"] for component in bill["components"]]
    assert len(references) == len(set(references))
    lock = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    pins = re.findall(r"^([\w.-]+)==(\S+)", lock, re.MULTILINE)
    assert {f"pkg:pypi/{re.sub(r'[-_.]+', '-', name).lower()}@{version}" for name, version in pins} <= set(references)
    manifest = (ROOT / "rejoinder/store/manifest.yaml").read_text(encoding="utf-8")
    files = {digest for model in yaml.safe_load(manifest)["models"].values() for digest in _digests(model)}
    listed = [part for one in bill["components"] for part in one.get("components", ())]
    assert {part["hashes"][0]["content"] for part in listed} == files


def _digests(model: dict[str, dict[str, dict[str, str]]]) -> list[str]:
    return [file["sha256"] for file in model["files"].values()]
