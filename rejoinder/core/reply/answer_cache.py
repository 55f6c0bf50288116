"""Answers that were given before: which questions may have one, and which of them answers a question.

An answer depends on everything that the language model was shown. So an entry is found only under its *scope*, a digest
of all of that but the newest question itself: the tenant, the system prompt, the tools and what they returned, the
greeting, the length allowed. What is left to compare is the question.

*Strict reading.* Only an opening is kept: a question before which the caller had said nothing in this prompt. A later
one is answered in the light of what was said, and may neither be kept nor, by default, be served (`later_turns` lets a
question that stands alone be answered from openings). A question about the caller is refused, and so is one whose
answer changes with time, unless the settings allow them (rejoinder/core/reply/question_matching.py).

*Finding.* First by the question's normal form; then, if there are vectors, by the nearest question of the scope at or
above the threshold whose content words are the same (`same_words`).
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Literal

import numpy as np
import numpy.typing as npt

from rejoinder.core.reply.prompt_window import ChatMessage
from rejoinder.core.reply.question_matching import (
    content_words,
    normal,
    personal,
    stands_alone,
    tells,
    time_dependent,
)
from rejoinder.core.settings.answer_cache import AnswerCacheSettings

Vector = npt.NDArray[np.float32]

LONGEST_QUESTION = 300
"""Characters; a longer one is no question that anybody asks twice."""

LONGEST_ANSWER = 2000
"""Characters; with 10,000 entries that bounds the cache at some 40 MB, vectors included."""

LATE_IN_A_ROW = 3
PAUSE_S = 5.0
LONGEST_PAUSE_S = 60.0


class CacheRefusal(Enum):
    """Why a question is neither looked up nor kept; values are metric labels."""

    CONTEXT = "refused_context"
    PERSONAL = "refused_personal"
    TIME = "refused_time"
    LENGTH = "refused_length"


@dataclass(frozen=True, slots=True)
class CacheScope:
    """Who asks, as far as it decides the answer: a digest of the API key ("" without keys), and the tools in effect."""

    tenant: str = ""
    tools: str = ""


NOBODY = CacheScope()


@dataclass(frozen=True, slots=True)
class CacheQuestion:
    """`opening`: its answer may be kept."""

    scope: str
    text: str
    opening: bool = True


@dataclass(frozen=True, slots=True)
class CacheHit:
    """A kept answer, and how like the question it answered was (1 for the same)."""

    answer: str
    kind: Literal["exact", "semantic"]
    similarity: float = 1.0


def tenant_of(key: str) -> str:
    """A name for whoever holds an API key, from which the key cannot be had; "" for nobody's."""
    return hashlib.sha256(key.encode()).hexdigest()[:16] if key else ""


def question_of(
    prompt: Sequence[ChatMessage], max_tokens: int, asker: CacheScope, rules: AnswerCacheSettings
) -> CacheQuestion | CacheRefusal:
    """The question at the prompt's end, with the scope of everything else in it."""
    if not prompt or prompt[-1].role != "user":
        return CacheRefusal.CONTEXT
    before, text = list(prompt[:-1]), prompt[-1].content
    turns = [at for at, message in enumerate(before) if message.role == "user"]
    if turns:
        later = before[turns[0] :]
        if not rules.later_turns or any(message.role == "system" for message in later) or not stands_alone(text):
            return CacheRefusal.CONTEXT
        before = before[: turns[0]]
    if not normal(text) or len(text) > LONGEST_QUESTION:
        return CacheRefusal.LENGTH
    if not rules.allow_personal and personal(text):
        return CacheRefusal.PERSONAL
    if not rules.allow_time_dependent and time_dependent(text):
        return CacheRefusal.TIME
    return CacheQuestion(_scope(before, max_tokens, asker), text, opening=not turns)


def keeps(question: CacheQuestion, answer: str, rules: AnswerCacheSettings) -> bool:
    """Whether a complete answer to this question may be kept."""
    if not question.opening or not answer.strip() or len(answer) > LONGEST_ANSWER:
        return False
    return rules.allow_time_dependent or not time_dependent(answer)


def _scope(before: Sequence[ChatMessage], max_tokens: int, asker: CacheScope) -> str:
    digest = hashlib.sha256()
    parts = [asker.tenant, asker.tools, str(max_tokens)]
    for message in before:
        parts += [message.role, message.content]
    for part in parts:
        data = part.encode()
        # Lengths keep neighbours apart: "a", "bc" is not "ab", "c".
        digest.update(len(data).to_bytes(8, "big") + data)
    return f"{asker.tenant}:{digest.hexdigest()}"


Key = tuple[str, str]
Group = tuple[str, tuple[str, ...]]


@dataclass(slots=True)
class _Entry:
    answer: str
    group: Group | None
    kept_at: float
    row: int


class AnswerIndex:
    """At most `max_entries` answers, each for `ttl_s`; the one that was longest of no use leaves first."""

    def __init__(self, rules: AnswerCacheSettings, dimensions: int) -> None:
        """`dimensions`: of the vectors; 0 if there are none."""
        self._rules = rules
        self._entries: OrderedDict[Key, _Entry] = OrderedDict()
        # Entries that may pass for one another, by the row of their vector.
        self._groups: dict[Group, dict[int, Key]] = {}
        self._free = list(range(rules.max_entries - 1, -1, -1))
        self._vectors = np.zeros((rules.max_entries, dimensions), np.float32)

    def __len__(self) -> int:
        return len(self._entries)

    def exact(self, question: CacheQuestion, now: float) -> CacheHit | None:
        """The answer to this very question."""
        entry = self._live((question.scope, normal(question.text)), now)
        return CacheHit(entry.answer, "exact") if entry else None

    def comparable(self, question: CacheQuestion) -> bool:
        """Whether a vector of it would be of use: some kept question may pass for it."""
        return self._group(question) in self._groups

    def nearest(self, question: CacheQuestion, vector: Vector, now: float) -> CacheHit | None:
        """The answer to the most similar question that may pass for this one; `vector` has length 1."""
        group = self._group(question)
        rows = dict(self._groups.get(group, {})) if group else {}
        scores = self._vectors[list(rows)] @ vector
        for score, key in sorted(zip(scores.tolist(), rows.values(), strict=True), reverse=True):
            if score < self._rules.threshold:
                return None
            if entry := self._live(key, now):
                return CacheHit(entry.answer, "semantic", score)
        return None

    def keep(self, question: CacheQuestion, vector: Vector | None, answer: str, now: float) -> None:
        """Keep an answer; the newest one to a question counts. Without a vector it is found by its words only."""
        key = (question.scope, normal(question.text))
        if key in self._entries:
            self._drop(key)
        elif not self._free:
            self._drop(next(iter(self._entries)))
        row, group = self._free.pop(), self._group(question) if vector is not None else None
        if group and vector is not None:
            self._vectors[row] = vector
            self._groups.setdefault(group, {})[row] = key
        self._entries[key] = _Entry(answer, group, now, row)

    def clear(self, tenant: str | None = None) -> int:
        """Forget everything, or all of one tenant; returns how many answers that were."""
        gone = [key for key in self._entries if tenant is None or key[0].startswith(f"{tenant}:")]
        for key in gone:
            self._drop(key)
        return len(gone)

    def _group(self, question: CacheQuestion) -> Group | None:
        """Which questions may pass for this one: those of equal content words; with `same_words` off, of its scope."""
        if not self._rules.same_words:
            return question.scope, ()
        words = content_words(question.text)
        return (question.scope, words) if tells(words) else None

    def _live(self, key: Key, now: float) -> _Entry | None:
        """The entry, which is then of use again, unless there is none or its time is over."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        if now - entry.kept_at > self._rules.ttl_s:
            self._drop(key)
            return None
        self._entries.move_to_end(key)
        return entry

    def _drop(self, key: Key) -> None:
        entry = self._entries.pop(key)
        self._free.append(entry.row)
        if entry.group:
            rows = self._groups[entry.group]
            del rows[entry.row]
            if not rows:
                del self._groups[entry.group]


class LookupBackoff:
    """Lookups that came to nothing in time, and when the next is worth its wait: after three in a row one is tried in
    five seconds, then in ten, at last once a minute.
    """

    def __init__(self) -> None:
        self._late = 0
        self._until = float("-inf")
        self._pause_s = PAUSE_S

    def waits(self, now: float) -> bool:
        """Whether a lookup may be waited for."""
        return now >= self._until

    def answered(self) -> None:
        """One came in time: all is well again."""
        self._late, self._pause_s = 0, PAUSE_S

    def late(self, now: float) -> None:
        """One was given up, or failed."""
        self._late += 1
        if self._late >= LATE_IN_A_ROW:
            self._until = now + self._pause_s
            self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
