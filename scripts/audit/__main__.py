"""Check the locked packages against known advisories.

    python scripts/audit             # the advisories of scripts/audit/advisories.yaml; needs no network
    python scripts/audit --online    # and PyPI's advisories, with pip-audit (pip install pip-audit)

Exit status: 0 if no locked package has a known fault, 1 if one has, 2 if PyPI's advisories could not be read.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from packaging.version import Version

ROOT = Path(__file__).parents[2]
LOCK = ROOT / "constraints.txt"
ADVISORIES = Path(__file__).with_name("advisories.yaml")


def locked(lock: Path = LOCK) -> dict[str, Version]:
    """Return the version of each package in a lock file, by its normalized name (PEP 503)."""
    pins = re.findall(r"^([\w.-]+)==(\S+)", lock.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[-_.]+", "-", name).lower(): Version(version) for name, version in pins}


def faults(packages: dict[str, Version], advisories: list[dict[str, Any]]) -> Iterator[str]:
    """Yield a sentence for each package whose version is older than the fix of an advisory."""
    for advisory in advisories:
        version = packages.get(advisory["package"])
        if version is not None and version < Version(str(advisory["fixed"])):
            yield (
                f"{advisory['package']} {version}: {advisory['id']}, {advisory['fault']}. "
                f"Lock {advisory['fixed']} or newer."
            )


def online() -> int:
    """Ask PyPI's advisories about every locked package, print what it answers, and return the exit status."""
    command = [sys.executable, "-m", "pip_audit", "--no-deps", "--disable-pip", "--format", "json", "-r", str(LOCK)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        print(f"pip-audit failed: {done.stderr.strip()[-400:]}", file=sys.stderr)
        return 2
    found = [f"{one['name']} {one['version']}: {fault['id']}" for one in packages for fault in one.get("vulns", ())]
    unknown = [one["name"] for one in packages if "skip_reason" in one]
    print("\n".join(found) or "PyPI knows no fault of the packages that it knows.")
    if unknown:
        print(f"PyPI does not know these packages or versions: {', '.join(unknown)}.", file=sys.stderr)
    return 1 if found else 2 if unknown else 0


def main() -> int:
    """Parse the command line, check, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--online", action="store_true", help="also ask PyPI's advisories, with pip-audit")
    options = parser.parse_args()
    advisories = yaml.safe_load(ADVISORIES.read_text(encoding="utf-8"))
    found = list(faults(locked(), advisories))
    print("\n".join(found) or f"{len(advisories)} advisories, none of them about a locked version.")
    status = online() if options.online else 0
    return 1 if found else status


if __name__ == "__main__":
    sys.exit(main())
