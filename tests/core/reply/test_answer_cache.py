"""Tests of the answer cache: which questions it may answer, and with which stored answers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoinder.core.errors import ConfigError
from rejoinder.core.reply.answer_cache import (
    LATE_IN_A_ROW,
    LONGEST_ANSWER,
    LONGEST_PAUSE_S,
    NOBODY,
    PAUSE_S,
    AnswerIndex,
    CacheHit,
    CacheQuestion,
    CacheRefusal,
    CacheScope,
    LookupBackoff,
    Vector,
    may_store,
    question_of,
    tenant_of,
)
from rejoinder.core.reply.prompt_window import ChatMessage
from rejoinder.core.settings.settings import AnswerCacheSettings, Settings, parse_settings

RULES = AnswerCacheSettings(enabled=True)
SYSTEM = ChatMessage("system", "You sell shoes.")
ASKED = ChatMessage("user", "Where is the main entrance?")


def question(
    *prompt: ChatMessage, tokens: int = 60, asker: CacheScope = NOBODY, rules: AnswerCacheSettings = RULES
) -> CacheQuestion:
    found = question_of(prompt, tokens, asker, rules)
    assert isinstance(found, CacheQuestion), found
    return found


def refused(*prompt: ChatMessage, rules: AnswerCacheSettings = RULES) -> CacheRefusal:
    found = question_of(prompt, 60, NOBODY, rules)
    assert isinstance(found, CacheRefusal), found
    return found


def unit(*values: float) -> Vector:
    vector = np.array(values, np.float32)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


# -- which questions the cache may answer ------------------------------------------------------------------------------


def test_it_is_off_by_default() -> None:
    """The answer cache is disabled by default."""
    assert Settings().answer_cache.enabled is False


def test_all_but_the_question_is_its_scope() -> None:
    """Two questions share a scope, and so answers, only if everything except the question is equal.

    That is tenant, system prompt, greeting, tools, tool results and maximum length of the answer.
    """
    same = [question(SYSTEM, ASKED), question(SYSTEM, ChatMessage("user", "Is there a lift?"))]
    others = [
        question(SYSTEM, ASKED, asker=CacheScope(tenant_of("key-1"))),
        question(SYSTEM, ASKED, asker=CacheScope(tenant_of("key-2"))),
        question(SYSTEM, ASKED, asker=CacheScope(tools='[{"name": "lookup"}]')),
        question(SYSTEM, ASKED, tokens=61),
        question(ChatMessage("system", "You sell boots."), ASKED),
        question(SYSTEM, ChatMessage("assistant", "Welcome."), ASKED),
        question(SYSTEM, ChatMessage("system", "Result of the tool call: 7"), ASKED),
        question(ASKED),
    ]
    assert len({found.scope for found in same}) == 1
    assert len({found.scope for found in (*same, *others)}) == 1 + len(others)


@given(st.text(max_size=5), st.text(max_size=5), st.text(max_size=5), st.text(max_size=5))
def test_neighbouring_parts_of_a_scope_do_not_run_together(a: str, b: str, c: str, d: str) -> None:
    """Different pairs of tools and system prompt have different scopes, also if the joined texts are equal."""
    one = question(ChatMessage("system", b), ASKED, asker=CacheScope(tools=a)).scope
    other = question(ChatMessage("system", d), ASKED, asker=CacheScope(tools=c)).scope
    assert (one == other) == ((a, b) == (c, d))


def test_a_key_cannot_be_read_off_its_tenant() -> None:
    """The name of a tenant is a digest that does not contain its API key. Callers without a key share the tenant ""."""
    assert tenant_of("") == ""
    assert "secret" not in tenant_of("secret")
    assert tenant_of("secret") == tenant_of("secret") != tenant_of("other")


def test_only_an_opening_is_looked_up() -> None:
    """Only the first question of a conversation is looked up: a later question is refused.

    A prompt that does not end with the caller's words is refused too.
    """
    assert (
        refused(SYSTEM, ChatMessage("user", "Hello."), ChatMessage("assistant", "Hi."), ASKED) is CacheRefusal.CONTEXT
    )
    assert refused(SYSTEM, ASKED, ChatMessage("assistant", "Left.")) is CacheRefusal.CONTEXT
    assert refused() is CacheRefusal.CONTEXT


def test_a_later_question_may_be_answered_but_not_stored() -> None:
    """With later_turns, a later question that stands alone is looked up, and its answer is never stored.

    A later question is refused if it refers back to earlier turns, or if a tool has returned a result.
    """
    rules = AnswerCacheSettings(enabled=True, later_turns=True)
    talk = (SYSTEM, ChatMessage("user", "Hello."), ChatMessage("assistant", "Hi."))
    later = question(*talk, ASKED, rules=rules)
    assert later.scope == question(SYSTEM, ASKED).scope
    assert not may_store(later, "On the left.", rules)
    assert refused(*talk, ChatMessage("user", "And where is that?"), rules=rules) is CacheRefusal.CONTEXT
    assert (
        refused(*talk, ChatMessage("system", "Result of the tool call: 7"), ASKED, rules=rules) is CacheRefusal.CONTEXT
    )


def test_personal_and_time_dependent_questions_need_permission() -> None:
    """Personal and time-dependent questions are refused, unless the setting of each allows them."""
    mine, now = ChatMessage("user", "What is in my basket?"), ChatMessage("user", "Are you open today?")
    assert refused(SYSTEM, mine) is CacheRefusal.PERSONAL
    assert refused(SYSTEM, now) is CacheRefusal.TIME
    question(SYSTEM, mine, rules=AnswerCacheSettings(allow_personal=True))
    question(SYSTEM, now, rules=AnswerCacheSettings(allow_time_dependent=True))


def test_a_time_dependent_answer_is_not_stored() -> None:
    """An answer is not stored if it is time-dependent, empty, or too long."""
    asked = question(SYSTEM, ASKED)
    assert may_store(asked, "On the left.", RULES)
    assert not may_store(asked, "It is closed today.", RULES)
    assert may_store(asked, "It is closed today.", AnswerCacheSettings(allow_time_dependent=True))
    assert not may_store(asked, "  ", RULES)
    assert not may_store(asked, "a" * (LONGEST_ANSWER + 1), RULES)


@pytest.mark.parametrize("text", ["", " ?!", "why " * 200])
def test_texts_without_words_or_too_long_are_refused(text: str) -> None:
    """A text without words, or longer than LONGEST_QUESTION, is refused."""
    assert refused(SYSTEM, ChatMessage("user", text)) is CacheRefusal.LENGTH


def test_the_rules_are_english() -> None:
    """Settings that enable the answer cache for a language other than English, or with two replicas, are refused."""
    with pytest.raises(ConfigError, match=r"answer_cache.*English"):
        parse_settings({"answer_cache": {"enabled": True}, "stt": {"language": "de"}})
    with pytest.raises(ConfigError, match=r"args\.answer_cache"):
        parse_settings({"answer_cache": {"autoscaling": {"max_replicas": 2}}})


# -- the index of stored answers ---------------------------------------------------------------------------------------


def cache_question(text: str, scope: str = "s") -> CacheQuestion:
    return CacheQuestion(scope, text)


def test_an_equal_question_hits_in_its_scope_only() -> None:
    """`exact` ignores case and punctuation, finds only answers of the same scope, and returns the newest one."""
    index = AnswerIndex(RULES, 0)
    index.keep(cache_question("Where is it?"), None, "Left.", 0)
    index.keep(cache_question("where is it"), None, "Right.", 1)
    assert index.exact(cache_question("Where is it"), 2) == CacheHit("Right.", "exact")
    assert index.exact(cache_question("Where is it", scope="t"), 2) is None
    assert len(index) == 1


def test_the_nearest_question_with_the_same_words_hits() -> None:
    """`nearest` returns the answer to the most similar question with the same scope and the same content words.

    It returns None if the similarity is below the threshold.
    """
    index = AnswerIndex(RULES, 2)
    index.keep(cache_question("Do you open on Monday?"), unit(1, 0.02), "At nine.", 0)
    index.keep(cache_question("What time do you open on Sunday?"), unit(1, 0.1), "At ten.", 0)
    index.keep(cache_question("When do you open on Sunday?", scope="t"), unit(1, 0), "Never.", 0)
    hit = index.nearest(cache_question("When do you open on Sunday?"), unit(1, 0), 1)
    assert hit is not None
    assert (hit.answer, hit.kind) == ("At ten.", "semantic")
    assert hit.similarity == pytest.approx(float(unit(1, 0.1)[0]), abs=1e-6)
    assert index.nearest(cache_question("When do you open on Sunday?"), unit(0.2, 1), 1) is None


def test_without_the_rule_of_words_the_nearest_wins() -> None:
    """If `same_words` is off, the answer with the highest cosine similarity is found, whatever the questions' words."""
    index = AnswerIndex(AnswerCacheSettings(same_words=False), 2)
    index.keep(cache_question("Do you open on Monday?"), unit(1, 0.02), "At nine.", 0)
    hit = index.nearest(cache_question("When do you open on Sunday?"), unit(1, 0), 1)
    assert hit is not None
    assert hit.answer == "At nine."


def test_an_answer_expires() -> None:
    """An answer older than `ttl_s` seconds is no longer found and is removed from the index."""
    index = AnswerIndex(AnswerCacheSettings(ttl_s=10), 2)
    index.keep(cache_question("When do you open?"), unit(1, 0), "At nine.", 0)
    assert index.exact(cache_question("When do you open?"), 10)
    assert index.nearest(cache_question("What time do you open?"), unit(1, 0), 11) is None
    assert len(index) == 0


def test_the_least_recently_used_answer_is_dropped() -> None:
    """If the cache is full, a new answer replaces the one whose last use, by storing or returning it, is the oldest."""
    index = AnswerIndex(AnswerCacheSettings(max_entries=2), 2)
    index.keep(cache_question("When do you open?"), unit(1, 0), "At nine.", 0)
    index.keep(cache_question("Where do you park?"), unit(0, 1), "Below.", 1)
    assert index.nearest(cache_question("What time do you open?"), unit(1, 0), 2)
    index.keep(cache_question("Who is the owner?"), unit(1, 1), "Anna.", 3)
    assert index.exact(cache_question("Where do you park?"), 4) is None
    assert index.nearest(cache_question("Where do you park"), unit(0, 1), 4) is None
    assert index.exact(cache_question("When do you open?"), 4)


def test_a_tenant_can_be_cleared() -> None:
    """`clear` removes the answers of the given tenant, without an argument all answers, and returns how many."""
    index = AnswerIndex(RULES, 0)
    for key in ("one", "two", ""):
        index.keep(question(SYSTEM, ASKED, asker=CacheScope(tenant_of(key))), None, f"For {key}.", 0)
    assert index.clear(tenant_of("one")) == 1
    assert index.exact(question(SYSTEM, ASKED, asker=CacheScope(tenant_of("two"))), 1)
    assert index.clear("") == 1
    assert index.clear() == 1
    assert len(index) == 0


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["keep", "exact", "near", "clear"]),
            st.integers(0, 5),
            st.sampled_from("st"),
            st.floats(0, 3),
        ),
        max_size=60,
    ),
    st.integers(1, 4),
)
def test_every_hit_is_the_newest_stored_answer(story: list[tuple[str, int, str, float]], room: int) -> None:
    """For any order of calls, every answer found is the newest one to its question in its scope and has not expired.

    There are never more than `max_entries` answers in the index.
    """
    index = AnswerIndex(AnswerCacheSettings(max_entries=room, ttl_s=5), 6)
    stored: dict[tuple[str, str], tuple[str, float]] = {}
    now = 0.0
    for act, number, scope, pause in story:
        now += pause
        query = cache_question(f"Where is room {number} please?", scope)
        vector = np.eye(6, dtype=np.float32)[number]
        if act == "keep":
            stored[scope, query.text] = (f"{scope}{number} at {now}", now)
            index.keep(query, vector, stored[scope, query.text][0], now)
        elif act == "clear":
            index.clear()
            stored.clear()
        else:
            hit = index.exact(query, now) if act == "exact" else index.nearest(query, vector, now)
            if hit:
                answer, at = stored[scope, query.text]
                assert hit.answer == answer
                assert now - at <= 5
        assert len(index) <= room


# -- pauses of a slow cache --------------------------------------------------------------------------------------------


def test_three_late_lookups_make_a_pause() -> None:
    """After LATE_IN_A_ROW late lookups in a row, no answer is looked up for PAUSE_S seconds.

    The pause doubles with each further late lookup, up to a maximum. A lookup in time resets the count.
    """
    backoff = LookupBackoff()
    for _ in range(LATE_IN_A_ROW - 1):
        backoff.late(0)
    backoff.answered()
    for _ in range(LATE_IN_A_ROW - 1):
        backoff.late(1)
    assert backoff.waits(1)
    backoff.late(1)
    assert not backoff.waits(1 + PAUSE_S - 0.1)
    assert backoff.waits(1 + PAUSE_S)
    backoff.late(1 + PAUSE_S)
    assert not backoff.waits(1 + 3 * PAUSE_S - 0.1), "the next pause is twice as long"
    assert backoff.waits(1 + 3 * PAUSE_S)
    for number in range(9):
        backoff.late(100 * number)
    assert backoff.waits(800 + LONGEST_PAUSE_S)
