"""All uses of private names of third-party packages in the load generator.

`deployments/serving/compat.py` has the uses in `deployments`, which the load generator must not import. Contract tests
for both modules are in `tests/deployments/serving/test_compat.py`. The uses were checked with the versions in
constraints.txt.
"""

from __future__ import annotations

from openai.resources.realtime.realtime import AsyncRealtimeConnection


async def ping(connection: AsyncRealtimeConnection) -> float:
    """Send a WebSocket ping and return the round-trip time in seconds.

    The OpenAI client has no method for pings. This function uses the websockets connection in its private
    `_connection`.

    Source: https://github.com/openai/openai-python/blob/v3.54.0/src/openai/resources/realtime/realtime.py

    Raises:
        ConnectionClosed: The connection closes before the pong arrives.
    """
    return await (await connection._connection.ping())
