"""Test of calls that are held on six hosts while one machine joins the cluster and another is drained."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.system.machines.many_sessions import HOSTS, MORE_HOSTS, hold

pytestmark = [pytest.mark.ray, pytest.mark.netns, pytest.mark.models, pytest.mark.timeout(420)]

SESSIONS = 48


def test_no_call_is_lost_while_hosts_come_and_go(tmp_path: Path) -> None:
    """Every caller is connected, on six hosts, and every turn is answered, though hosts join and a machine is drained.

    The calls of the drained machine stay on its hosts.
    """
    held = hold(tmp_path, SESSIONS, for_s=36.0, join_s=75.0, think_s=20.0, ramp_s=8.0)
    counts = held.result.counts
    assert len(held.spread) == HOSTS
    assert sum(held.spread.values()) == SESSIONS
    assert min(held.spread.values()) > 0
    assert len(held.later) == MORE_HOSTS, (held.later, held.result.counts)
    assert {host: held.later[host] for host in held.spread} == held.spread, held.result.counts
    assert (counts.sessions_opened, counts.sessions_dropped, counts.sessions_failed) == (SESSIONS, 0, 0)
    assert counts.turns == counts.answered + counts.interrupted > 0
