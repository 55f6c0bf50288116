"""Tests of hedged language model requests.

They check which replicas get requests, what the budget allows, and that cancelled attempts delay no caller.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from actors.stages.hedged_llm import GenerationStats, Hedger
from actors.stages.ports import LlmRequest
from actors.stages.retry import StageFailures
from rejoinder.core.errors import BackendError
from rejoinder.core.settings.settings import BreakerSettings, HedgingSettings, Settings
from tests.actors.fakes import CountingMetrics, WordyLlm
from tests.actors.stage_play import Play
from tests.actors.virtual_time import virtual

EAGER = HedgingSettings(budget=1.0)
NO_BREAKER = BreakerSettings(enabled=False)
REQUEST = LlmRequest(())


def now() -> float:
    return asyncio.get_running_loop().time()


class Desk:
    """Client of a `Hedger` under test, with the fake language model and the metrics that the hedger uses."""

    def __init__(
        self,
        llm: WordyLlm,
        settings: HedgingSettings = EAGER,
        breaker: BreakerSettings = NO_BREAKER,
        backup: WordyLlm | None = None,
    ) -> None:
        self.llm = llm
        self.metrics = CountingMetrics()
        self.hedger = Hedger(
            llm, settings=Settings(hedging=settings, breaker=breaker), metrics=self.metrics, clock=now, backup=backup
        )

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Desk]:
        """Run the hedger while the context is open, and yield this object."""
        running = asyncio.create_task(self.hedger.run())
        try:
            yield self
        finally:
            running.cancel()
            await asyncio.wait({running})

    async def ask(self, give_up_s: float = 60.0, request: LlmRequest = REQUEST) -> tuple[str, float, GenerationStats]:
        """Send a request and return the answer, its time to first token in seconds, and the generation's statistics."""
        began, first, words, stats = now(), 0.0, "", GenerationStats()
        async for delta in self.hedger.stream(request, StageFailures(self.metrics), stats, give_up_s):
            first = first or now() - began
            words += delta.text
        return words, first, stats

    def count(self, outcome: str) -> int:
        """Return how many hedges were counted with this outcome: sent, won, wasted, budget_exhausted or vetoed."""
        return self.metrics.counts[f"hedge {outcome}"]


@virtual
async def test_a_slow_first_token_is_hedged_on_another_replica() -> None:
    """If replica a has sent no token after the first-token deadline, a hedge goes to replica b, which answers; a is
    cancelled.
    """
    async with Desk(WordyLlm(ttft_s={"a": 5.0, "b": 0.08})).open() as desk:
        words, ttft, stats = await desk.ask()
        await asyncio.sleep(0.1)
    assert words == desk.llm.answer
    assert ttft == pytest.approx(0.6 + 0.08)
    assert stats.hedged
    assert [replica for replica, _ in desk.llm.requests] == ["a", "b"]
    assert (desk.count("sent"), desk.count("won"), desk.count("wasted")) == (1, 1, 0)
    assert desk.llm.running == 0


@virtual
async def test_with_another_backend_the_hedge_goes_there() -> None:
    """If there is a backup model, the hedge goes to the backup and not to another replica of the primary model."""
    backup = WordyLlm(ttft_s={"z": 0.05}, answer="From elsewhere.")
    async with Desk(WordyLlm(ttft_s={"a": 5.0, "b": 0.01}), backup=backup).open() as desk:
        words, ttft, stats = await desk.ask()
        await asyncio.sleep(0.1)
    assert (words, stats.hedged) == ("From elsewhere.", True)
    assert ttft == pytest.approx(0.6 + 0.05)
    assert [replica for replica, _ in desk.llm.requests] == ["a"]
    assert (desk.llm.running, backup.running) == (0, 0)


@virtual
async def test_with_another_backend_failover_goes_there_and_comes_back() -> None:
    """If the primary model is dead, the backup answers, and if the backup is dead, the primary."""
    backup = WordyLlm(ttft_s={"z": 0.05})
    async with Desk(WordyLlm(ttft_s={"a": 0.05}, dead={"a"}), backup=backup).open() as desk:
        words, _, _ = await desk.ask()
        assert words == backup.answer
        backup.dead.add("z")
        desk.llm.dead.clear()
        words, _, _ = await desk.ask()
        assert words == desk.llm.answer


@virtual
async def test_a_request_for_the_small_model_goes_to_the_backup_first() -> None:
    """A request for the small model goes to the backup first, and its hedge and retry go to the primary. Without a
    backup the primary answers.
    """
    small = LlmRequest((), small=True)
    backup = WordyLlm(ttft_s={"z": 0.05}, answer="In short.")
    async with Desk(WordyLlm(ttft_s={"a": 0.08}), backup=backup).open() as desk:
        assert (await desk.ask(request=small))[0] == "In short."
        assert desk.llm.requests == []
        backup.ttft_s = {"z": 5.0}
        words, ttft, stats = await desk.ask(request=small)
        assert (words, stats.hedged) == (desk.llm.answer, True)
        assert ttft == pytest.approx(0.6 + 0.08)
        backup.dead.add("z")
        assert (await desk.ask(request=small))[0] == desk.llm.answer
    async with Desk(WordyLlm()).open() as desk:
        assert (await desk.ask(request=small))[0] == desk.llm.answer


@virtual
async def test_a_hedge_is_vetoed_where_it_would_only_wait() -> None:
    """While all replicas have long queues, no hedge is sent. It is due again later, and is sent once a queue is
    shorter.
    """
    llm = WordyLlm(ttft_s={"a": 3.0, "b": 0.08}, queued=HedgingSettings().veto_queue)
    async with Desk(llm).open() as desk:
        asked = asyncio.create_task(desk.ask())
        await asyncio.sleep(1.3)
        assert (desk.count("sent"), desk.count("vetoed")) == (0, 2)
        llm.queued = 0
        _, ttft, stats = await asked
    assert stats.hedged
    assert ttft == pytest.approx(3 * 0.6 + 0.08)
    assert desk.count("sent") == 1


@virtual
async def test_a_hedge_that_loses_is_wasted_and_cancelled() -> None:
    """If the primary request answers before its hedge, the hedge is cancelled and counted as wasted."""
    async with Desk(WordyLlm(ttft_s={"a": 0.65, "b": 0.3})).open() as desk:
        _, ttft, stats = await desk.ask()
        await asyncio.sleep(0.1)
    assert ttft == pytest.approx(0.65)
    assert stats.hedged
    assert (desk.count("sent"), desk.count("won"), desk.count("wasted")) == (1, 0, 1)
    assert desk.llm.running == 0


@virtual
async def test_a_quick_answer_is_not_hedged() -> None:
    """If the first token arrives before the deadline, no hedge is sent."""
    async with Desk(WordyLlm(ttft_s={"a": 0.5, "b": 0.01})).open() as desk:
        _, _, stats = await desk.ask()
    assert not stats.hedged
    assert len(desk.llm.requests) == 1


@virtual
async def test_the_delay_is_the_deadline_first_and_a_quantile_after_enough_samples() -> None:
    """The hedge delay is a fixed deadline at first. After min_samples answers it is a quantile of their times to first
    token.
    """
    settings = HedgingSettings(budget=0.05, min_samples=40, window_s=600)
    async with Desk(WordyLlm(ttft_s={"a": 0.1, "b": 0.1}, answer="Yes.", gap_s=0), settings).open() as desk:
        for _ in range(39):
            await desk.ask()
        assert desk.hedger.policy.delay_s(now()) == 0.6
        await desk.ask()
        assert desk.hedger.policy.delay_s(now()) == pytest.approx(0.1, rel=0.02)
        desk.llm.ttft_s["a"] = 3.0
        _, ttft, stats = await desk.ask()
    assert stats.hedged
    assert ttft == pytest.approx(0.2, abs=0.01)


@virtual
async def test_without_budget_there_is_no_hedge() -> None:
    """The default budget allows one hedge per 25 requests. A hedge beyond it is counted once as budget_exhausted."""
    async with Desk(WordyLlm(ttft_s={"a": 1.0, "b": 0.1}), HedgingSettings()).open() as desk:
        _, ttft, _ = await desk.ask()
        assert ttft == pytest.approx(1.0)
        assert (desk.count("sent"), desk.count("budget_exhausted")) == (0, 1)
        desk.llm.ttft_s["a"] = 0.05
        for _ in range(24):
            await desk.ask()
        desk.llm.ttft_s["a"] = 1.0
        assert (await desk.ask())[1] == pytest.approx(0.7)
        assert (desk.count("sent"), desk.count("budget_exhausted")) == (1, 1)


@virtual
async def test_the_limit_of_attempts_is_not_the_budget() -> None:
    """A hedge that is not sent because of the limit MAX_ATTEMPTS is not counted as an exhausted budget."""
    rich = HedgingSettings(budget=1.0, first_token_deadline_ms=50)
    async with Desk(WordyLlm(ttft_s={"a": 0.4, "b": 0.4, "c": 0.4}), rich).open() as desk:
        for _ in range(10):
            await desk.ask()
        desk.llm.ttft_s = {"a": 3.0, "b": 3.0, "c": 3.0}
        exhausted = desk.count("budget_exhausted")
        await desk.ask()
    assert desk.count("budget_exhausted") == exhausted == 0


@virtual
async def test_a_loser_that_ignores_its_cancellation_delays_nobody() -> None:
    """The answer does not wait for a cancelled attempt that continues for 5 s. This attempt is counted as an error
    after cancel_timeout_s.
    """
    async with Desk(WordyLlm(ttft_s={"a": 20.0, "b": 0.1}, stubborn={"a"})).open() as desk:
        began = now()
        _, ttft, _ = await desk.ask()
        assert ttft == pytest.approx(0.7)
        assert now() - began < 1.5
        assert desk.llm.running == 1
        await asyncio.sleep(6)
        assert desk.llm.running == 0
        assert desk.metrics.counts["backend llm_cancel"] == 1


@virtual
async def test_leaving_the_answer_stops_every_attempt() -> None:
    """If the reader is cancelled before the first token, the primary request and its hedge stop."""
    async with Desk(WordyLlm(ttft_s={"a": 5.0, "b": 5.0})).open() as desk:
        asking = asyncio.create_task(desk.ask())
        await asyncio.sleep(1.0)
        assert desk.llm.running == 2
        asking.cancel()
        await asyncio.wait({asking})
        await asyncio.sleep(0.01)
        assert desk.llm.running == 0


@virtual
async def test_all_replicas_dead_is_one_error_in_the_end() -> None:
    """If all replicas fail for give_up_s, a BackendError is raised that names the stage."""
    async with Desk(WordyLlm(dead={"a", "b"})).open() as desk:
        began = now()
        with pytest.raises(BackendError, match="llm did not answer") as raised:
            await desk.ask(give_up_s=5.0)
        assert 5.0 <= now() - began < 6.0
        assert raised.value.stage == "llm"


@virtual
async def test_a_hedged_turn_says_so() -> None:
    """The field `hedged` in the report of response.done is true only for a turn with a hedge."""
    play = Play(Settings(hedging=EAGER), llm=WordyLlm(ttft_s={"a": 3.0, "b": 0.1}))
    async with play.call() as caller:
        first = await caller.say()
        play.llm.ttft_s["a"] = 0.05
        await caller.hush(8)
        second = await caller.say()
    assert (first["rejoinder"]["hedged"], second["rejoinder"]["hedged"]) == (True, False)
    assert play.llm.running == 0
