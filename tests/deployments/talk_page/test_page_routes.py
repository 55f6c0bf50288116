"""Tests of the routes of the page: its files, their types and the headers that restrict it."""

from __future__ import annotations

import re

import httpx2

from deployments.talk_page.page_routes import STATIC
from tests.actors.stage_play import Play
from tests.loadtest.callers.server import listening

KEYS = frozenset({"alpha"})


async def test_the_page_is_served_without_a_key() -> None:
    """`/` is the page, also on a host with keys, since a key can only be entered in the page."""
    async with listening(Play(), KEYS) as (url, _), httpx2.AsyncClient() as client:
        page = await client.get(url.replace("ws", "http", 1).removesuffix("v1"))
    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "<title>Talk to Rejoinder</title>" in page.text


async def test_every_file_has_its_type_and_the_policy() -> None:
    """Browsers may run only the page's own files: each has a policy without `unsafe` sources and without wildcards."""
    types = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
    async with listening(Play()) as (url, _), httpx2.AsyncClient() as client:
        for path in STATIC.iterdir():
            answer = await client.get(url.replace("ws", "http", 1).removesuffix("v1") + path.name)
            assert answer.content == path.read_bytes()
            assert answer.headers["content-type"].startswith(types[path.suffix[1:]])
            assert answer.headers["x-content-type-options"] == "nosniff"
            policy = answer.headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            assert "*" not in policy
            assert "http" not in policy


def test_the_page_names_no_other_server_and_has_no_inline_script() -> None:
    """The policy would block both. The only URL is the name of SVG's language."""
    for path in STATIC.iterdir():
        urls = set(re.findall(r"(?:https?|wss?)://[^\"'\s)]+", path.read_text(encoding="utf-8")))
        assert urls <= {"http://www.w3.org/2000/svg"}, path.name
    html = (STATIC / "index.html").read_text(encoding="utf-8")
    assert re.findall(r"<script[^>]*>", html) == ['<script type="module" src="talk.js">']
    assert not re.search(r"\son\w+=|\sstyle=|<style", html)
