"""Tests that a wrong key, address or model of an OpenAI-compatible server is found before anything starts."""

from __future__ import annotations

import asyncio
import re

import pytest

from cluster.doctor.servers import server_faults
from cluster.environment import free_port
from rejoinder.core.errors import RejoinderError
from rejoinder.core.settings.settings import parse_settings
from tests.deployments.engines.llm.faulty_server import FaultyServer, Reply, error, good

KEY = "TEST_OF_SERVERS_KEY"


def asked(url: str, *, keys_here: bool = True, section: str = "llm") -> list[tuple[str, RejoinderError | None]]:
    """Return what is found for a server at `url`."""
    stage = {"engine": "openai_api", "base_url": url, "model": "m", "api_key_env": KEY}
    return list(server_faults(parse_settings({section: stage}), keys_here=keys_here))


async def found(reply: Reply, section: str = "llm") -> tuple[str, RejoinderError | None]:
    """Return the setting and the error for a server that gives this reply."""
    async with FaultyServer([reply]).open() as url:
        (only,) = await asyncio.to_thread(asked, url, section=section)
    return only


@pytest.mark.parametrize("section", ["llm", "llm_backup"])
async def test_a_working_server_has_no_fault(section: str) -> None:
    """A server that begins an answer is right, also as the backup."""
    assert await found(good(), section) == (f"args.{section}.base_url", None)


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        (error("401 Unauthorized", message="Incorrect API key"), "Incorrect API key"),
        (error("404 Not Found", "model_not_found", "no such model"), "no such model"),
        (Reply(("<html>hello</html>",), kind="text/html"), "the server sent a web page"),
    ],
)
async def test_a_wrong_server_is_one_short_sentence(reply: Reply, says: str) -> None:
    """The error says what the server said, on one line of at most 400 characters."""
    _, fault = await found(reply)
    assert fault is not None
    text = str(fault)
    assert re.search(says, text)
    assert len(text) <= 400
    assert "\n" not in text


def test_a_server_that_is_not_there_is_found() -> None:
    """An address at which nobody listens is an error."""
    ((_, fault),) = asked(f"http://127.0.0.1:{free_port()}/v1")
    assert fault is not None


def test_a_key_that_is_missing_here_may_be_on_the_nodes() -> None:
    """Without its key a server elsewhere is an error on this machine, and left out if other machines may have it."""
    url = "https://api.example.invalid/v1"
    ((_, fault),) = asked(url)
    assert fault is not None
    assert KEY in str(fault)
    assert asked(url, keys_here=False) == []


def test_other_engines_have_no_server() -> None:
    """The default engine is asked nothing."""
    assert list(server_faults(parse_settings({}), keys_here=True)) == []
