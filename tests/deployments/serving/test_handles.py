"""Handles and their router on a real Serve: callers who know whom to avoid, and cancels that must arrive.

The cancellations are those that Serve itself loses in the mode we run it in (or did: the last of each list is ours).
"""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Iterator

import pytest

from cluster.environment import free_port
from tests.system.harness.lab import PUPPETS, LabClient, deploy
from tests.system.harness.nodes import head
from tests.system.harness.watching import wait_until

pytestmark = [pytest.mark.ray, pytest.mark.timeout(180)]

# A call that nothing holds up is over in milliseconds; this machine may be busy with other things.
PROMPT_S = 2.0


@pytest.fixture(scope="module")
def lab() -> Iterator[LabClient]:
    with head() as node:
        yield deploy(node, f"http://127.0.0.1:{free_port()}", start=True)


@pytest.fixture
def names(lab: LabClient) -> list[str]:
    """The replicas, all alive."""
    wait_until(lambda: len(lab.puppets()) == PUPPETS, 60, "three puppets")
    return sorted(puppet["replica"] for puppet in lab.puppets())


def _finish(lab: LabClient, number: int, timeout_s: float = PROMPT_S) -> dict[str, object]:
    wait_until(lambda: bool(lab.state(number)["over"]), timeout_s, "the call's end")
    return lab.state(number)


def test_avoided_replicas_get_nothing(lab: LabClient, names: list[str]) -> None:
    """Of 60 calls that name two replicas to avoid, all at once, every one is answered by the third."""
    numbers = [lab.start("read", first_s=0.05, avoid=names[:2]) for _ in range(60)]
    answers = [_finish(lab, number, 20)["answers"] for number in numbers]
    assert answers == [[names[2]]] * 60


def test_mixed_wishes_are_kept_apart(lab: LabClient, names: list[str]) -> None:
    """Calls under way together each get their own wish, not their neighbour's."""
    wishes = [names[:number] + names[number + 1 :] for number in range(3)] * 10
    numbers = [lab.start("read", first_s=0.05, avoid=avoid) for avoid in wishes]
    for number, avoid in zip(numbers, wishes, strict=True):
        answers = _finish(lab, number, 20)["answers"]
        assert isinstance(answers, list)
        assert answers[0] not in avoid


def test_without_a_choice_an_avoided_one_answers(lab: LabClient, names: list[str]) -> None:
    """A retry would rather ask a replica that failed than nobody."""
    found = _finish(lab, lab.start("read", first_s=0, avoid=names))
    assert found["error"] == ""
    assert found["answers"][0] in names  # type: ignore[index]


def test_a_strict_call_waits_for_a_new_replica(lab: LabClient, names: list[str]) -> None:
    """Nobody gets a hedge that avoids everybody, until a replica appears that it did not name."""
    began = lab.counts()["began"]
    number = lab.start("read", first_s=0, avoid=names, strict=True)
    time.sleep(1.0)  # a window in which the wrong thing could happen
    assert lab.state(number) == lab.state(number) | {"replica": "", "items": 0, "over": False}
    assert lab.counts()["began"] == began
    victim = next(puppet for puppet in lab.puppets() if puppet["replica"] == names[0])
    os.kill(int(victim["pid"]), signal.SIGKILL)
    answers = _finish(lab, number, 60)["answers"]
    assert isinstance(answers, list)
    assert answers[0] not in names


def test_while_nobody_lives_calls_fail_at_once(lab: LabClient, names: list[str]) -> None:
    """Neither a call that waits for a replica nor one that comes now waits in silence for the replacements; then one
    is answered as ever.
    """
    waiting = lab.start("read", first_s=0, avoid=names, strict=True)
    for puppet in lab.puppets():
        os.kill(int(puppet["pid"]), signal.SIGKILL)
    # Serve has to see the deaths first; a replacement takes longer, as the next call's failure shows.
    found = [_finish(lab, waiting, 10), _finish(lab, lab.start("ask", first_s=0), 0.5)]
    gone = "Puppet has no running replica."
    assert [one["error"] for one in found] == [f"BackendError: llm: {gone}", f"BackendError: turn_detector: {gone}"]
    wait_until(lambda: not _finish(lab, lab.start("ask", first_s=0))["error"], 60, "an answer")


def test_a_cancelled_strict_call_leaves_nothing_behind(lab: LabClient, names: list[str]) -> None:
    """A hedge that was waiting for another replica is never sent once it is cancelled."""
    before = lab.counts()
    number = lab.start("read", first_s=0, avoid=names, strict=True)
    lab.cancel(number)
    assert lab.state(number)["over"]
    assert lab.counts() == before


def test_waiting_hedges_hold_up_nobody(lab: LabClient, names: list[str]) -> None:
    """While 20 hedges wait for a replica that does not exist, an ordinary call is answered at once."""
    waiting = [lab.start("read", first_s=0, avoid=names, strict=True) for _ in range(20)]
    try:
        assert _finish(lab, lab.start("read", first_s=0))["error"] == ""
    finally:
        for number in waiting:
            lab.cancel(number)


def test_the_replica_is_known_before_it_answers(lab: LabClient, names: list[str]) -> None:
    """Who was chosen is known while the answer is still far away."""
    number = lab.start("read", first_s=30, avoid=names[:2])
    wait_until(lambda: lab.state(number)["replica"] == names[2], PROMPT_S, "the chosen replica")
    assert lab.state(number)["items"] == 0
    lab.cancel(number)


def test_a_stopped_replica_is_known_and_can_be_avoided(lab: LabClient, names: list[str]) -> None:
    """A replica that hangs (SIGSTOP) is named while it says nothing, and a hedge that avoids it is answered."""
    victim = next(puppet for puppet in lab.puppets() if puppet["replica"] == names[2])
    os.kill(int(victim["pid"]), signal.SIGSTOP)
    try:
        number = lab.start("read", first_s=0, avoid=names[:2])
        wait_until(lambda: lab.state(number)["replica"] == names[2], PROMPT_S, "the chosen replica")
        found = _finish(lab, lab.start("read", first_s=0, avoid=[names[2]], strict=True))
        assert found["answers"][0] in names[:2]  # type: ignore[index]
        assert lab.state(number)["items"] == 0
        lab.cancel(number)
    finally:
        os.kill(int(victim["pid"]), signal.SIGCONT)


def test_a_broadcast_leaves_a_hung_replica_out(lab: LabClient, names: list[str]) -> None:
    """While one replica is stopped (SIGSTOP), a broadcast returns the answers of the two others."""
    victim = next(puppet for puppet in lab.puppets() if puppet["replica"] == names[1])
    os.kill(int(victim["pid"]), signal.SIGSTOP)
    try:
        assert sorted(puppet["replica"] for puppet in lab.puppets()) == [names[0], names[2]]
    finally:
        os.kill(int(victim["pid"]), signal.SIGCONT)


def test_no_request_is_lost(lab: LabClient, names: list[str]) -> None:
    """Of 200 calls at once each is answered once, with its own answer, and no replica is left out."""
    before = {puppet["replica"]: puppet["began"] for puppet in lab.puppets()}
    assert lab.flood(200) == [number + 1 for number in range(200)]
    shares = Counter({puppet["replica"]: puppet["began"] - before[puppet["replica"]] for puppet in lab.puppets()})
    assert shares.total() == 200
    assert min(shares.values()) > 0


def _settled(lab: LabClient, before: Counter[str], stopped: int) -> None:
    """Until `stopped` more calls were stopped, and none is left running."""

    def holds() -> bool:
        change = lab.counts() - before
        return change["stopped"] == stopped and change["began"] == change["stopped"] + change["done"]

    wait_until(holds, PROMPT_S, f"{stopped} stopped calls")


def _begun(lab: LabClient, before: Counter[str], count: int = 1) -> None:
    wait_until(lambda: lab.counts()["began"] == before["began"] + count, PROMPT_S, "the replica's start")


@pytest.mark.parametrize("kind", ["open", "read", "ask"])
def test_a_call_without_an_answer_yet_is_stopped(lab: LabClient, names: list[str], kind: str) -> None:
    """A cancelled task stops the replica, be it a stream nobody reads, one whose first item is awaited, or unary."""
    before = lab.counts()
    number = lab.start(kind, first_s=30)
    _begun(lab, before)
    lab.cancel(number)
    _settled(lab, before, 1)


def test_a_stream_that_nobody_reads_is_stopped_on_leaving(lab: LabClient, names: list[str]) -> None:
    """Leaving the context is enough: Serve alone would let a stream that was never iterated run on."""
    before = lab.counts()
    number = lab.start("open", first_s=30)
    _begun(lab, before)
    lab.leave(number)
    _settled(lab, before, 1)


@pytest.mark.parametrize("end", ["cancel", "leave"])
def test_a_stream_is_stopped_between_items(lab: LabClient, names: list[str], end: str) -> None:
    """A reader that is cancelled and one that breaks off both stop the replica at its next item."""
    before = lab.counts()
    number = lab.start("read", first_s=0, items=100_000)
    wait_until(lambda: lab.state(number)["items"] > 2, PROMPT_S, "the first items")
    getattr(lab, end)(number)
    _settled(lab, before, 1)


@pytest.mark.parametrize("kind", ["read", "ask"])
def test_a_deadline_stops_the_replica(lab: LabClient, names: list[str], kind: str) -> None:
    """What a caller's timeout gives up is given up in the replica too."""
    before = lab.counts()
    found = _finish(lab, lab.start(kind, first_s=30, timeout_s=0.5))
    assert str(found["error"]).startswith("TimeoutError")
    _settled(lab, before, 1)


def test_a_cancel_at_any_moment_arrives(lab: LabClient, names: list[str]) -> None:
    """Of 600 calls cancelled at ever later moments of their way to a replica, none runs on."""
    before = lab.counts()
    lab.sweep(300)

    def settled() -> bool:
        change = lab.counts() - before
        return change["began"] > 100 and change["began"] == change["stopped"]

    wait_until(settled, PROMPT_S, "the end of every call that reached a replica")
