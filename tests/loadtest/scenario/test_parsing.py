"""Parsing of scenarios: keys, units, files, and an error that names each mistake."""

from __future__ import annotations

from pathlib import Path

import pytest

from loadtest.generator.run import check_target
from loadtest.scenario.parsing import scenario, seconds
from loadtest.scenario.scenario import Arrivals, Scenario
from rejoinder.core.errors import ConfigError
from rejoinder.core.wire.formats import AudioFormat

FIXED = {"url": "ws://127.0.0.1:8000/v1", "sessions": 5, "for_s": 30.0}


def test_keys_units_and_lists() -> None:
    """Dotted keys, durations with units, comma-separated lists and short codec names set the scenario's fields."""
    found = scenario(
        FIXED, ["arrivals=spike", "ramp_s=2m", "behavior.barge_in=0.2", "regions=local,us-asia+relay=2", "codec=pcmu"]
    )
    assert found.arrivals is Arrivals.SPIKE
    assert found.ramp_s == 120
    assert found.behavior.barge_in == 0.2
    assert found.regions == ("local", "us-asia+relay=2")
    assert found.codec is AudioFormat.PCMU


def test_a_later_setting_overrides_a_file(tmp_path: Path) -> None:
    """A YAML file has the same keys, nested. A setting after it on the command line overrides its value."""
    file = tmp_path / "peak.yaml"
    file.write_text("seed: 7\nbehavior: {think_s: 1, barge_in: 0.1}\n")
    found = scenario(FIXED, [f"@{file}", "behavior.think_s=3"])
    assert (found.seed, found.behavior.think_s, found.behavior.barge_in) == (7, 3, 0.1)


BAD = (
    "nonsense=1 behavior.nonsense=1 seed=x behavior.barge_in=2 warm_up_s=-1 turn_detection=none seed codec=opus "
    "workers=0 ramp_s=5parsecs @/nowhere.yaml rate_per_s=0 rate_per_s=-1 session_s=0 behavior.think_sigma=100 "
    "regions=[ sessions=7 for_s=1m"
)


@pytest.mark.parametrize("setting", BAD.split())
def test_a_bad_setting_is_refused_by_name(setting: str) -> None:
    """The error for an invalid setting names the key, or the form that `--set` expects."""
    key = setting.partition("=")[0].rpartition(".")[2].lstrip("@")
    with pytest.raises(ConfigError, match=f"--set|{key}"):
        scenario(FIXED, [setting])


def test_a_setting_cannot_override_an_option() -> None:
    """A key that the command's own option sets is an error, because neither value may win silently."""
    with pytest.raises(ConfigError, match=r"for_s .*options"):
        scenario(FIXED, ["for_s=5"])


def test_a_value_cannot_have_fields() -> None:
    """ConfigError is raised if `behavior` is set to a plain value and then one of its fields is set."""
    with pytest.raises(ConfigError, match=r"behavior\.FIELD"):
        scenario(FIXED, ["behavior=1", "behavior.think_s=1"])


def test_a_url_that_is_not_a_websocket_is_refused() -> None:
    """A scenario whose URL is not ws:// or wss:// is refused before any connection is opened."""
    with pytest.raises(ConfigError, match="ws://"):
        scenario(FIXED | {"url": "http://127.0.0.1:8000/v1"}, [])


@pytest.mark.parametrize(("text", "expected"), [("60", 60), ("1.5m", 90), ("2h", 7200), ("10s", 10)])
def test_durations(text: str, expected: float) -> None:
    """A duration has the unit s, m or h. A number without a unit means seconds."""
    assert seconds(text, "--for") == expected


def test_load_stays_on_this_machine_unless_the_server_is_owned() -> None:
    """Another host is refused unless `owned` is set, because load can overload another operator's server."""
    check_target(Scenario("ws://localhost:8000/v1", 1, 10))
    with pytest.raises(ConfigError, match="owned"):
        check_target(Scenario("ws://192.0.2.1:8000/v1", 1, 10))
    check_target(Scenario("ws://192.0.2.1:8000/v1", 1, 10, owned=True))
