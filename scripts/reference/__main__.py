"""Write the generated reference pages: settings, launch description, commands and metrics.

    python scripts/reference            # write the pages of docs/reference that are in PAGES
    python scripts/reference --check    # exit status 1 if a page differs from what would be written

The pages are committed. `tests/docs/test_reference.py` fails if they are out of date.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from cli_page import cli_page
from metrics_page import metrics_page
from settings_page import description_page, settings_page

ROOT = Path(__file__).resolve().parents[2]
PAGES = {
    "settings.md": settings_page,
    "launch-description.md": description_page,
    "cli.md": cli_page,
    "metrics.md": metrics_page,
}


def main() -> int:
    """Write the pages, or check them with `--check`. Return the exit status: 1 if a checked page differs, else 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a page is out of date")
    check = parser.parse_args().check
    stale = 0
    for name, page in PAGES.items():
        path, text = ROOT / "docs" / "reference" / name, page()
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        stale += 1
        if not check:
            path.write_text(text, encoding="utf-8")
        print(f"{'out of date' if check else 'written'}: {path.relative_to(ROOT)}")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
