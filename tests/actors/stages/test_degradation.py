"""Tests of degradation: while a stage is slow, a session's replies omit something to save time.

What is omitted is called a measure. It ends when the stage has recovered.
"""

from __future__ import annotations

from typing import Any

from rejoinder.core.reply.held_clips import HeldClip
from rejoinder.core.settings.settings import DegradationSettings, Settings, SpeculationSettings
from tests.actors.fakes import ScriptedStt, ToneTts, WordyLlm
from tests.actors.stage_play import Caller, Play
from tests.actors.virtual_time import virtual

RULES = DegradationSettings()
LATE, GOOD = RULES.late_turns, RULES.good_turns
CLAUSES = "The sun stands high above the town, and lunch is ready for everyone, if they want some."
FILLER = HeldClip("Let me see.", b"\x11\x11" * 12_000)


def quick(*, drafts: bool = False, degradation: DegradationSettings = RULES) -> Play:
    """Return a test scenario in which every stage is faster than the latency guide's limit, so no turn is late."""
    play = Play(settings=Settings(degradation=degradation, speculation=SpeculationSettings(enabled=drafts)))
    play.stt = ScriptedStt(delay_s=0.1)
    play.llm = WordyLlm(ttft_s={"a": 0.08}, answer=CLAUSES)
    return play


async def turns(caller: Caller, count: int) -> list[Any]:
    """Have `count` turns, and return for each reply the list of degradation measures that it reports."""
    reported = []
    for _ in range(count):
        await caller.hush(1.0)
        reported.append((await caller.say(2.0))["rejoinder"]["degradation"])
    return reported


@virtual
async def test_a_session_in_time_takes_no_measure() -> None:
    """In a session without late turns no degradation measure is in force or reported."""
    play = quick(drafts=True)
    async with play.call() as caller:
        assert await turns(caller, 4) == [[]] * 4
    assert not [name for name in play.metrics.counts if name.startswith("degradation")]


@virtual
async def test_a_slow_language_model_is_replaced_by_the_backup_and_comes_back() -> None:
    """After two late turns the backup model answers. After four good turns the primary model answers again."""
    play = quick()
    play.llm.ttft_s = {"a": 2.0}
    play.backup = WordyLlm(ttft_s={"z": 0.08}, answer="In short: noon.")
    async with play.call() as caller:
        assert await turns(caller, LATE) == [[]] * LATE
        play.llm.ttft_s = {"a": 0.08}
        requested = len(play.llm.requests)
        assert await turns(caller, GOOD) == [["small_model"]] * GOOD
        assert len(play.llm.requests) == requested
        assert caller.transcript.endswith("In short: noon.")
        assert await turns(caller, 1) == [[]]
        assert len(play.llm.requests) == requested + 1
        assert caller.transcript.endswith(CLAUSES)
    assert play.metrics.counts["degradation small_model"] == 1
    assert (play.llm.running, play.backup.running) == (0, 0)


@virtual
async def test_slow_speech_output_gets_shorter_segments() -> None:
    """While text-to-speech is slow, the first segment is short, and the rest is divided into clauses. After recovery it
    is divided into sentences again.
    """
    play = quick()
    play.tts = ToneTts(delay_s=0.8)
    whole = ["The sun stands high above", "the town, and lunch is ready for everyone, if they want some."]
    async with play.call() as caller:
        await turns(caller, LATE)
        assert play.tts.texts == whole * LATE
        assert await turns(caller, 1) == [["short_segment"]]
        pieces = ["The sun stands", "high above the town,", "and lunch is ready for everyone,", "if they want some."]
        assert play.tts.texts[len(whole) * LATE :] == pieces
        play.tts.delay_s = 0.02
        assert await turns(caller, GOOD) == [["short_segment"]] * GOOD
        play.tts.texts.clear()
        assert await turns(caller, 1) == [[]]
        assert play.tts.texts[1].startswith("above") or play.tts.texts[1:] == whole[1:]


@virtual
async def test_slow_speech_to_text_gets_no_speculative_work() -> None:
    """While speech-to-text is slow, there are no drafts and no interim transcripts."""
    play = quick(drafts=True)
    play.stt.delay_s = 1.0
    async with play.call() as caller:
        await turns(caller, LATE)
        drafts, guesses = play.metrics.counts["draft begun"], len(play.stt.partials)
        assert drafts >= LATE
        assert guesses > 0
        assert await turns(caller, 1) == [["no_speculation"]]
        play.stt.delay_s = 0.1
        assert await turns(caller, GOOD) == [["no_speculation"]] * GOOD
        assert (play.metrics.counts["draft begun"], len(play.stt.partials)) == (drafts, guesses)
        assert play.metrics.counts["draft declined_degradation"] >= GOOD
        assert await turns(caller, 1) == [[]]
        assert play.metrics.counts["draft begun"] == drafts + 1
        assert len(play.stt.partials) > guesses


@virtual
async def test_without_a_backup_a_filler_comes_sooner() -> None:
    """If the language model is slow and there is no backup, a filler is played at the latency tier's limit (800 ms)
    instead of after `filler_after_ms`.
    """
    play = quick()
    play.llm.ttft_s = {"a": 0.9}
    play.fillers = (FILLER,)
    async with play.call() as caller:
        await turns(caller, LATE)
        assert play.metrics.counts["filler"] == 0
        await caller.hush(1.0)
        done = await caller.say(2.0)
    assert done["rejoinder"]["degradation"] == ["filler"]
    assert done["rejoinder"]["filler_ms"] <= 800
    assert play.metrics.counts["filler"] == 1


@virtual
async def test_other_sessions_of_the_host_are_left_as_they_are() -> None:
    """Only the session with late turns uses the backup model. Another session uses the primary at the same time."""
    play = quick()
    play.llm.ttft_s = {"a": 2.0}
    play.backup = WordyLlm(ttft_s={"z": 0.08}, answer="In short: noon.")
    one, other = Caller(), Caller()
    async with play.open() as host, host.converse("one", one.take, "rejoinder") as session:
        one.session = session
        await turns(one, LATE)
        play.llm.ttft_s = {"a": 0.08}
        async with host.converse("other", other.take, "rejoinder") as second:
            other.session = second
            assert await turns(one, 1) == [["small_model"]]
            assert await turns(other, 1) == [[]]
            assert await turns(one, 1) == [["small_model"]]
    assert other.transcript == CLAUSES


@virtual
async def test_a_policy_that_is_off_changes_nothing() -> None:
    """If degradation is disabled, no measure is in force, however late the turns are."""
    play = quick(drafts=True, degradation=DegradationSettings(enabled=False))
    play.llm.ttft_s, play.stt.delay_s = {"a": 2.0}, 1.0
    async with play.call() as caller:
        assert await turns(caller, 5) == [[]] * 5
    assert play.metrics.counts["draft declined_degradation"] == 0
