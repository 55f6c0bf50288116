"""Tests of the list of API keys: blanks, empty lists, digests, scopes and limits."""

from __future__ import annotations

import pytest

from rejoinder.core.access.api_keys import ApiKey, Scope, digest_of, find_key, parse_keys
from rejoinder.core.errors import ConfigError
from rejoinder.core.reply.answer_cache import tenant_of


@pytest.mark.parametrize("text", ["alpha,beta", "alpha, beta", " alpha ,\tbeta ,", "# keys\nalpha\n\n  beta  \n"])
def test_blanks_and_lines_do_not_matter(text: str) -> None:
    """Both keys are accepted, whatever blanks, commas, comments and lines stand around them."""
    keys = parse_keys(text, "KEYS")
    assert [key.digest for key in keys] == [digest_of("alpha"), digest_of("beta")]
    assert find_key(keys, ["beta"]) == keys[1]


@pytest.mark.parametrize("text", ["", ",", " , ,", "\n", "# only a comment"])
def test_a_list_without_a_key_is_refused(text: str) -> None:
    """A list that contains no key raises an error, because it would admit everybody."""
    with pytest.raises(ConfigError, match="KEYS: there is no key in it"):
        parse_keys(text, "KEYS")


def test_only_a_whole_key_is_accepted() -> None:
    """Parts of keys, other cases and the digest itself are no keys."""
    keys = parse_keys("alpha,beta", "KEYS")
    for sent in ("", "alph", "alphaa", "ALPHA", "alpha,beta", f"sha256:{digest_of('alpha')}", digest_of("alpha")):
        assert find_key(keys, [sent]) is None
    assert find_key((), ["alpha"]) is None


def test_options_stand_behind_a_key() -> None:
    """Scopes and limits of each key are read, and a key without scopes may talk and read metrics."""
    plain, limited = parse_keys("alpha, beta scope=metrics+admin sessions=5 per_minute=30", "KEYS")
    assert (plain.scopes, plain.sessions, plain.per_minute) == (frozenset({Scope.TALK, Scope.METRICS}), None, None)
    assert (limited.scopes, limited.sessions, limited.per_minute) == (frozenset({Scope.METRICS, Scope.ADMIN}), 5, 30)
    assert limited.allows(Scope.TALK)
    assert not ApiKey("", frozenset({Scope.METRICS})).allows(Scope.TALK)


@pytest.mark.parametrize("option", ["scope=root", "sessions=0", "sessions=x", "speed=1", "secret", "sha256:"])
def test_a_wrong_option_is_refused_without_the_key(option: str) -> None:
    """A wrong option raises an error that names the entry and shows neither the key nor the option."""
    with pytest.raises(ConfigError) as refused:
        parse_keys(f"one, hush-hush {option}", "KEYS")
    assert "KEYS, entry 2" in str(refused.value)
    assert "hush-hush" not in str(refused.value)


def test_an_entry_keeps_everything_but_the_key() -> None:
    """The entry that a launcher passes to hosts has the digest, the scopes and the limits, and not the key."""
    (key,) = parse_keys("alpha scope=talk sessions=2 per_minute=3", "KEYS")
    assert "alpha" not in key.entry()
    assert parse_keys(key.entry(), "KEYS") == (key,)
    assert find_key(parse_keys(key.entry(), "KEYS"), ["alpha"]) == key


def test_the_tenant_is_that_of_the_answer_cache() -> None:
    """A key's tenant is the digest under which the answer cache has always kept its answers."""
    (key,) = parse_keys("alpha", "KEYS")
    assert key.tenant == tenant_of("alpha")
