"""Write the software bill of materials: every locked package and every file of the models, as CycloneDX 1.6 JSON.

    python scripts/sbom > rejoinder.cdx.json

It is made of `constraints.txt` and the manifest of the model store alone, so it needs no network and is the same on
every machine. Licences of packages are those that the installed packages state.
"""

from __future__ import annotations

import importlib.metadata
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

import rejoinder

ROOT = Path(__file__).parents[2]


def packages() -> Iterator[dict[str, Any]]:
    """Yield a component for each package of constraints.txt."""
    lock = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    for name, version in re.findall(r"^([\w.-]+)==(\S+)", lock, re.MULTILINE):
        normal = re.sub(r"[-_.]+", "-", name).lower()
        component = {
            "type": "library",
            "bom-ref": f"pkg:pypi/{normal}@{version}",
            "name": normal,
            "version": version,
            "purl": f"pkg:pypi/{normal}@{version}",
        }
        licence = _licence(name)
        yield component | ({"licenses": [{"license": {"name": licence}}]} if licence else {})


def models() -> Iterator[dict[str, Any]]:
    """Yield a component for each model of the manifest, with the SHA-256 of its files."""
    manifest = yaml.safe_load((ROOT / "rejoinder/store/manifest.yaml").read_text(encoding="utf-8"))
    for name, model in manifest["models"].items():
        files = [
            {"type": "file", "name": file, "hashes": [{"alg": "SHA-256", "content": entry["sha256"]}]}
            for file, entry in model["files"].items()
        ]
        yield {
            "type": "machine-learning-model",
            "bom-ref": f"model:{name}",
            "name": name,
            "licenses": [{"license": {"name": model["licence"]}}],
            "components": files,
        }


def document() -> dict[str, Any]:
    """Return the bill of materials."""
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": {"type": "application", "name": "rejoinder", "version": rejoinder.__version__}},
        "components": [*packages(), *models()],
    }


def _licence(name: str) -> str:
    """Return the licence that an installed package states, in one line; "" if it is not installed or states none."""
    try:
        facts = importlib.metadata.metadata(name)
    except importlib.metadata.PackageNotFoundError:
        return ""
    stated = facts.get("License-Expression") or facts.get("License") or ""
    classified = [line.rpartition(" :: ")[2] for line in facts.get_all("Classifier") or () if "License ::" in line]
    short = stated.strip() if len(stated) < 100 and "\n" not in stated.strip() else ""
    return short or ", ".join(classified)


if __name__ == "__main__":
    json.dump(document(), sys.stdout, indent=1)
    sys.stdout.write("\n")
