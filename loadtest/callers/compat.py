"""Every use of a private name of a third-party package in the load generator, in one module.

The load generator must not import `deployments`, whose own module is `deployments/serving/compat.py`. The contract
tests of both are in `tests/deployments/serving/test_compat.py`. The uses were checked with the versions in
constraints.txt.
"""

from __future__ import annotations

from openai.resources.realtime.realtime import AsyncRealtimeConnection


async def ping(connection: AsyncRealtimeConnection) -> float:
    """Send a WebSocket ping and return the round trip time in seconds.

    The OpenAI client has no method for pings. This function uses the websockets connection in its `_connection`.

    Source: https://github.com/openai/openai-python/blob/v3.54.0/src/openai/resources/realtime/realtime.py

    Raises:
        ConnectionClosed: If the connection closes before the pong comes.
    """
    return await (await connection._connection.ping())
