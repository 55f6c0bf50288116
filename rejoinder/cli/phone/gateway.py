"""TCP server for Asterisk's AudioSocket: each connection is a call."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from deployments.telephony.phone_webhook import PhoneWebhook
from rejoinder.cli.phone.audiosocket_call import AudioSocketCall
from rejoinder.cli.phone.session_link import SessionServer
from rejoinder.core.errors import ConfigError
from rejoinder.core.telephony.audiosocket import HANG_UP
from rejoinder.core.telephony.phone_tools import PhoneProfile

logger = logging.getLogger(__name__)


class PhoneGateway:
    """Gateway between Asterisk and a server.

    Attributes:
        live: Number of calls.
    """

    def __init__(
        self, server: SessionServer, profile: PhoneProfile, *, webhook: PhoneWebhook | None = None, max_calls: int = 100
    ) -> None:
        """Create a gateway.

        Args:
            server: The servers to call.
            profile: What the agent is told and may do.
            webhook: Hands callers over; None if nothing does.
            max_calls: Maximum number of calls at the same time.
        """
        self.live = 0
        self._server = server
        self._profile = profile
        self._webhook = webhook
        self._max_calls = max_calls

    @asynccontextmanager
    async def listening(self, host: str, port: int) -> AsyncIterator[int]:
        """Answer calls on an address until the block ends. Yield the port; `port` 0 takes a free one.

        Raises:
            ConfigError: The address cannot be used.
        """
        try:
            listener = await asyncio.start_server(self._answer, host, port)
        except OSError as error:
            raise ConfigError(
                f"{host}:{port} cannot be used ({error.strerror}).", "Choose another port.", field="--audiosocket"
            ) from error
        async with listener:
            yield int(listener.sockets[0].getsockname()[1])
            listener.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.live >= self._max_calls:
            logger.warning("a call of Asterisk is refused: there are %d", self.live)
            writer.write(HANG_UP)
            writer.close()
            return
        self.live += 1
        try:
            await AudioSocketCall(reader, writer, self._server, self._profile, webhook=self._webhook).run()
        finally:
            self.live -= 1
