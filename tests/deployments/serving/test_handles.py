"""Tests of the handles and their router on a real Ray Serve: avoided replicas and cancellations.

The router runs on the caller's event loop. In this mode Serve's own `cancel` does not stop every call, so the handles
must do it.
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

# Maximum seconds until the answer to a call for which a replica is free. It takes milliseconds on an idle machine.
PROMPT_S = 2.0


@pytest.fixture(scope="module")
def lab() -> Iterator[LabClient]:
    with head() as node:
        yield deploy(node, f"http://127.0.0.1:{free_port()}", start=True)


@pytest.fixture
def names(lab: LabClient) -> list[str]:
    """The sorted ids of the replicas. The fixture waits until all replicas run."""
    wait_until(lambda: len(lab.puppets()) == PUPPETS, 60, "three puppets")
    return sorted(puppet["replica"] for puppet in lab.puppets())


def _finish(lab: LabClient, number: int, timeout_s: float = PROMPT_S) -> dict[str, object]:
    wait_until(lambda: bool(lab.state(number)["over"]), timeout_s, "the call's end")
    return lab.state(number)


def test_avoided_replicas_get_no_call(lab: LabClient, names: list[str]) -> None:
    """The third replica answers all of 60 concurrent calls that avoid the two others."""
    numbers = [lab.start("read", first_s=0.05, avoid=names[:2]) for _ in range(60)]
    answers = [_finish(lab, number, 20)["answers"] for number in numbers]
    assert answers == [[names[2]]] * 60


def test_concurrent_calls_keep_their_own_routes(lab: LabClient, names: list[str]) -> None:
    """Each of 30 concurrent calls avoids the replicas in its own `avoid`, and not those of another call."""
    routes = [names[:number] + names[number + 1 :] for number in range(3)] * 10
    numbers = [lab.start("read", first_s=0.05, avoid=avoid) for avoid in routes]
    for number, avoid in zip(numbers, routes, strict=True):
        answers = _finish(lab, number, 20)["answers"]
        assert isinstance(answers, list)
        assert answers[0] not in avoid


def test_without_a_choice_an_avoided_one_answers(lab: LabClient, names: list[str]) -> None:
    """A call that avoids all replicas and is not strict is answered by one of them."""
    found = _finish(lab, lab.start("read", first_s=0, avoid=names))
    assert found["error"] == ""
    assert found["answers"][0] in names  # type: ignore[index]


def test_no_request_is_lost(lab: LabClient, names: list[str]) -> None:
    """Each of 200 concurrent calls gets its own answer once, and every replica serves some of them."""
    # This test must run before the tests that stop a replica. Serve counts a call that is cancelled before its replica
    # accepts it as load of that replica for another 10 s. A replica with such a count would get none of the 200 calls.
    before = {puppet["replica"]: puppet["began"] for puppet in lab.puppets()}
    assert lab.flood(200) == [number + 1 for number in range(200)]
    shares = Counter({puppet["replica"]: puppet["began"] - before[puppet["replica"]] for puppet in lab.puppets()})
    assert shares.total() == 200
    assert min(shares.values()) > 0


def test_a_strict_call_waits_for_a_new_replica(lab: LabClient, names: list[str]) -> None:
    """A strict call that avoids all replicas waits until a new replica starts."""
    began = lab.counts()["began"]
    number = lab.start("read", first_s=0, avoid=names, strict=True)
    time.sleep(1.0)  # time in which a wrong router would send the call
    assert lab.state(number) == lab.state(number) | {"replica": "", "items": 0, "over": False}
    assert lab.counts()["began"] == began
    victim = next(puppet for puppet in lab.puppets() if puppet["replica"] == names[0])
    os.kill(int(victim["pid"]), signal.SIGKILL)
    answers = _finish(lab, number, 60)["answers"]
    assert isinstance(answers, list)
    assert answers[0] not in names


def test_without_a_replica_calls_fail_at_once(lab: LabClient, names: list[str]) -> None:
    """When all replicas are dead, a waiting call fails within 10 s, and a new call then fails within 0.5 s.

    Calls are answered again when replacements have started.
    """
    waiting = lab.start("read", first_s=0, avoid=names, strict=True)
    for puppet in lab.puppets():
        os.kill(int(puppet["pid"]), signal.SIGKILL)
    # Calls fail when Serve has noticed that the replicas are dead. Replacements start later, so both calls fail.
    found = [_finish(lab, waiting, 10), _finish(lab, lab.start("ask", first_s=0), 0.5)]
    gone = "Puppet has no running replica."
    assert [one["error"] for one in found] == [f"BackendError: llm: {gone}", f"BackendError: turn_detector: {gone}"]
    wait_until(lambda: not _finish(lab, lab.start("ask", first_s=0))["error"], 60, "an answer")


def test_a_cancelled_strict_call_is_never_sent(lab: LabClient, names: list[str]) -> None:
    """A strict call (a hedge) that is cancelled while it waits for another replica is not sent to any replica."""
    before = lab.counts()
    number = lab.start("read", first_s=0, avoid=names, strict=True)
    lab.cancel(number)
    assert lab.state(number)["over"]
    assert lab.counts() == before


def test_waiting_hedges_delay_no_other_call(lab: LabClient, names: list[str]) -> None:
    """While 20 hedges wait for a replica that does not exist, another call is answered within 2 s."""
    waiting = [lab.start("read", first_s=0, avoid=names, strict=True) for _ in range(20)]
    try:
        assert _finish(lab, lab.start("read", first_s=0))["error"] == ""
    finally:
        for number in waiting:
            lab.cancel(number)


def test_the_replica_is_known_before_it_answers(lab: LabClient, names: list[str]) -> None:
    """The caller of a stream knows its replica within 2 s, although the first item would come only after 30 s."""
    number = lab.start("read", first_s=30, avoid=names[:2])
    wait_until(lambda: lab.state(number)["replica"] == names[2], PROMPT_S, "the chosen replica")
    assert lab.state(number)["items"] == 0
    lab.cancel(number)


def test_a_stopped_replica_is_known_and_can_be_avoided(lab: LabClient, names: list[str]) -> None:
    """If the chosen replica hangs (SIGSTOP), its caller knows its id, and a hedge that avoids it is answered."""
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


def _settled(lab: LabClient, before: Counter[str], stopped: int) -> None:
    """Wait until replicas have cancelled `stopped` more calls than the counts `before`, and no call is running."""

    def holds() -> bool:
        change = lab.counts() - before
        return change["stopped"] == stopped and change["began"] == change["stopped"] + change["done"]

    wait_until(holds, PROMPT_S, f"{stopped} stopped calls")


def _begun(lab: LabClient, before: Counter[str], count: int = 1) -> None:
    """Wait until the replicas have begun `count` more calls than the counts `before`."""
    wait_until(lambda: lab.counts()["began"] == before["began"] + count, PROMPT_S, "the replica's start")


@pytest.mark.parametrize("kind", ["open", "read", "ask"])
def test_a_call_without_an_answer_yet_is_stopped(lab: LabClient, names: list[str], kind: str) -> None:
    """Cancelling a call that has no answer yet stops it in its replica.

    The call is a stream that is not read, a stream whose first item is awaited, or a call with a single answer.
    """
    before = lab.counts()
    number = lab.start(kind, first_s=30)
    _begun(lab, before)
    lab.cancel(number)
    _settled(lab, before, 1)


def test_an_unread_stream_is_stopped_on_leaving(lab: LabClient, names: list[str]) -> None:
    """A reader that leaves its stream before the first item stops it in the replica. Serve alone would let it run."""
    before = lab.counts()
    number = lab.start("open", first_s=30)
    _begun(lab, before)
    lab.leave(number)
    _settled(lab, before, 1)


@pytest.mark.parametrize("end", ["cancel", "leave"])
def test_a_stream_is_stopped_between_items(lab: LabClient, names: list[str], end: str) -> None:
    """If a stream's reader is cancelled or leaves the loop, the replica stops at its next item."""
    before = lab.counts()
    number = lab.start("read", first_s=0, items=100_000)
    wait_until(lambda: lab.state(number)["items"] > 2, PROMPT_S, "the first items")
    getattr(lab, end)(number)
    _settled(lab, before, 1)


@pytest.mark.parametrize("kind", ["read", "ask"])
def test_a_deadline_stops_the_replica(lab: LabClient, names: list[str], kind: str) -> None:
    """If the caller's timeout ends a call, the replica stops its work on the call."""
    before = lab.counts()
    found = _finish(lab, lab.start(kind, first_s=30, timeout_s=0.5))
    assert str(found["error"]).startswith("TimeoutError")
    _settled(lab, before, 1)


def test_a_cancellation_at_any_moment_arrives(lab: LabClient, names: list[str]) -> None:
    """Of 600 calls, cancelled at different times in their first ten milliseconds, none continues in its replica."""
    before = lab.counts()
    lab.sweep(300)

    def settled() -> bool:
        change = lab.counts() - before
        return change["began"] > 100 and change["began"] == change["stopped"]

    wait_until(settled, PROMPT_S, "the end of every call that reached a replica")
