"""Parts of the pages that the load generator and the planner write: one file each, without a network and a script."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2

STYLE = """\
  body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
  h1 { font-size: 1.6rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; border-bottom: 1px solid #ddd; }
  table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
  th, td { text-align: right; padding: .2rem .6rem; border-bottom: 1px solid #eee; }
  th:first-child, td:first-child, td.text, th.text { text-align: left; }
  .whole { font-weight: 700; } .dim { color: #666; }
  .notice { border-left: 4px solid #9a6700; background: #fff8e6; padding: .5rem 1rem; }
  svg { width: 100%; height: auto; } code { background: #f4f4f4; padding: 0 .2rem; }
"""
"""Style sheet of every page."""


def render_page(template: Path, **values: Any) -> str:
    """Return a page of HTML from a Jinja template, which gets `STYLE` as `style`. Values are escaped.

    Raises:
        jinja2.UndefinedError: The template uses a value that is not given.
    """
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    page = environment.from_string(template.read_text(encoding="utf-8"))
    return page.render(style=STYLE, **values)
