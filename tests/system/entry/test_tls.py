"""Tests of TLS on a real system: an unmodified OpenAI client holds a turn over wss://, and nothing is in plaintext."""

from __future__ import annotations

import ssl
from collections.abc import Iterator

import openai
import pytest
import websockets

from cluster.self_signed import TlsFiles, self_signed
from tests.system.harness.served import Served, serving

pytestmark = [pytest.mark.ray, pytest.mark.models, pytest.mark.timeout(300)]

EMULATED = {stage: {"engine": "emulated"} for stage in ("stt", "llm", "tts")}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> TlsFiles:
    return self_signed(tmp_path_factory.mktemp("certificates"), ("127.0.0.1", "localhost"))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, files: TlsFiles) -> Iterator[Served]:
    args = {**EMULATED, "tls": {"certificate": str(files.certificate), "key": str(files.key)}}
    with serving(tmp_path_factory.mktemp("tls"), args) as found:
        yield found


async def test_an_openai_client_holds_a_turn_over_tls(served: Served, files: TlsFiles) -> None:
    """openai-python, given the authority, connects to wss://127.0.0.1 and hears an answer."""
    trust = ssl.create_default_context(cafile=str(files.authority))
    base = f"{served.url}/v1"
    client = openai.AsyncOpenAI(api_key="none", base_url=base, websocket_base_url=base.replace("https", "wss"))
    async with client.realtime.connect(model="rejoinder", websocket_connection_options={"ssl": trust}) as connection:  # type: ignore[typeddict-unknown-key]
        await connection.conversation.item.create(
            item={"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hello."}]}
        )
        await connection.response.create()
        kinds = []
        async for event in connection:
            kinds.append(event.type)
            if event.type == "response.done":
                assert event.response.status == "completed"
                break
    assert kinds[0] == "session.created"
    assert kinds.count("response.output_audio.delta") > 10


async def test_a_client_without_the_authority_does_not_connect(served: Served) -> None:
    """A client that does not trust the authority refuses the server, and the port speaks no plaintext."""
    address = served.url.removeprefix("https://")
    with pytest.raises(ssl.SSLError):
        await websockets.connect(f"wss://{address}/v1/realtime")
    with pytest.raises((websockets.InvalidMessage, websockets.InvalidStatus, ConnectionError)):
        await websockets.connect(f"ws://{address}/v1/realtime")
