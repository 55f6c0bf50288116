"""Tests of the report of a language model replica on its streams."""

from __future__ import annotations

import asyncio

from actors.stages.ports import LlmRequest
from deployments.llm import Llm
from deployments.local.in_process import DirectLlm
from rejoinder.core.measuring.service_curves import ServiceCurve
from rejoinder.core.reply.prompt_window import ChatMessage
from rejoinder.core.settings.settings import EmulationSettings, LlmSettings, Settings

SLOW = EmulationSettings(curve=ServiceCurve(60_000), tokens=4)
REQUEST = LlmRequest((ChatMessage("user", "Hello"),))


async def test_a_replica_reports_the_streams_that_wait() -> None:
    """While three requests wait a minute for their first token, the replica reports three silent streams.

    When they are cancelled, it reports none.
    """
    port = DirectLlm(Llm(Settings(llm=LlmSettings(engine="emulated", emulation=SLOW, nice=0))))

    async def ask() -> None:
        async with port.open(REQUEST) as stream:
            async for _ in stream:
                pass

    asking = [asyncio.create_task(ask()) for _ in range(3)]
    await asyncio.sleep(0.15)
    report = await port.report("direct", 0.1)
    assert report.waiting == 3
    assert report.silent_s >= 0.1
    for task in asking:
        task.cancel()
    await asyncio.wait(asking)
    assert (await port.report("direct", 0.1)).waiting == 0
