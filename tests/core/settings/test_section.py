"""Tests of the shared types of the configuration: language codes, server addresses and addresses to listen on."""

from __future__ import annotations

from typing import Any

import pytest

from rejoinder.core.errors import ConfigError
from rejoinder.core.settings.section import WHISPER_LANGUAGES, check_server_url
from rejoinder.core.settings.serve_file import parse_serve_file


def refused(document: dict[str, Any]) -> ConfigError:
    """Return the error with which the configuration is refused."""
    with pytest.raises(ConfigError) as caught:
        parse_serve_file(document)
    return caught.value


def test_the_languages_are_those_of_whisper() -> None:
    """WHISPER_LANGUAGES has the codes of the installed faster-whisper."""
    from faster_whisper.tokenizer import _LANGUAGE_CODES

    assert frozenset(_LANGUAGE_CODES) == WHISPER_LANGUAGES


@pytest.mark.parametrize(
    ("language", "fix"),
    [("en-US", "use en, without a region"), ("de_DE", "use de"), ("english", "or auto"), ("", "or auto")],
)
def test_a_wrong_language_is_refused_with_the_right_code(language: str, fix: str) -> None:
    """`stt.language` takes codes of Whisper and auto only, and the error names the code to write."""
    error = refused({"applications": [{"args": {"stt": {"language": language}}}]})
    assert error.field == "applications.0.args.stt.language"
    assert fix in error.message


@pytest.mark.parametrize("url", ["api.example.com/v1", "localhost:8000/v1", "http://", "ftp://host", "http://a b"])
def test_an_address_without_a_scheme_or_host_is_refused(url: str) -> None:
    """`llm.base_url` must be the address of an HTTP server."""
    error = refused({"applications": [{"args": {"llm": {"engine": "openai_api", "base_url": url}}}]})
    assert error.field == "applications.0.args.llm.base_url"
    assert "http://HOST:PORT/v1" in error.message


@pytest.mark.parametrize(
    "url", ["", "http://127.0.0.1:8001/v1", " https://api.example.com/v1 ", "http://[::1]:8001/v1"]
)
def test_an_address_of_a_server_is_accepted(url: str) -> None:
    """An address with a scheme and a host is accepted, without the blanks around it."""
    assert check_server_url(url) == url.strip()


@pytest.mark.parametrize("host", ["::1", "::", "[::]", "fe80::1"])
def test_an_ipv6_address_to_listen_on_is_refused(host: str) -> None:
    """Ray Serve would wait without end for an HAProxy that cannot read its configuration."""
    error = refused({"http_options": {"host": host}})
    assert error.field == "http_options.host"
    assert "IPv4" in error.message


@pytest.mark.parametrize("host", ["", "127.0.0.1:8000", "http://localhost", "my host"])
def test_a_host_with_a_port_or_scheme_is_refused(host: str) -> None:
    """`http_options.host` is an address or a name only."""
    assert refused({"http_options": {"host": host}}).field == "http_options.host"


@pytest.mark.parametrize("document", [None, [], "text", 3])
def test_a_file_that_is_no_mapping_is_refused(document: Any) -> None:
    """An empty file, a list or a text is refused with a hint at the example."""
    assert "ray_config.yaml" in refused(document).remedy
