"""Answer cache: which questions may be answered from earlier answers, and which entry answers a question.

An answer depends on more than the question. The scope of an entry is a digest of everything else that the answer
depends on: the tenant, the system prompt, the tools and their results, the greeting, and the maximum length. A lookup
finds only entries with the same scope, so that only the questions must be compared.

Which questions are cached: only the answer to a first question (`opening`) is stored. This is a question before which
the caller has said nothing in the prompt. The answer to a later question may depend on the conversation. It is never
stored. By default a later question is not looked up. With the setting `later_turns`, a later question that can be
understood by itself may get the stored answer to a first question. Questions about the caller, and questions whose
answer changes with time, are refused unless the settings allow them (see `question_matching`).

How a question is looked up: first by its normal form (`question_matching.normalize`). With embedding vectors, the
lookup then takes the most similar question of the scope. Its similarity must reach the threshold, and with the setting
`same_words` its content words must be the same.
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
    normalize,
    personal,
    stands_alone,
    tells,
    time_dependent,
)
from rejoinder.core.settings.answer_cache import AnswerCacheSettings

Vector = npt.NDArray[np.float32]

LONGEST_QUESTION = 300
"""Maximum characters of a question. A longer one is unlikely to be repeated."""

LONGEST_ANSWER = 2000
"""Maximum characters of an answer. It limits 10,000 entries to about 40 MB, vectors included."""

LATE_IN_A_ROW = 3
"""Number of late lookups in a row after which lookups pause."""

PAUSE_S = 5.0
"""First pause of the lookups, in seconds."""

LONGEST_PAUSE_S = 60.0
"""Longest pause of the lookups, in seconds."""


class CacheRefusal(Enum):
    """Reason why a question is not looked up in the cache and its answer is not stored. Values are metric labels.

    CONTEXT: its answer may depend on the conversation. PERSONAL: it is about the caller. TIME: its answer changes with
    time. LENGTH: it has no words or is too long.
    """

    CONTEXT = "refused_context"
    PERSONAL = "refused_personal"
    TIME = "refused_time"
    LENGTH = "refused_length"


@dataclass(frozen=True, slots=True)
class CacheScope:
    """The part of a question's scope that is not in the prompt.

    An answer is reused only for a question with the same scope.

    Attributes:
        tenant: Digest of the API key. Empty if there are no keys.
        tools: The tools that the model may call, and the tool choice, as JSON. Empty without tools.
    """

    tenant: str = ""
    tools: str = ""


NOBODY = CacheScope()


@dataclass(frozen=True, slots=True)
class CacheQuestion:
    """A question that may be looked up.

    Attributes:
        scope: Digest of everything except the question that the answer depends on.
        text: The question.
        opening: Whether the caller has said nothing before it in the prompt. Only then may its answer be stored.
    """

    scope: str
    text: str
    opening: bool = True


@dataclass(frozen=True, slots=True)
class CacheHit:
    """A stored answer.

    Attributes:
        answer: The text of the answer.
        kind: "exact" if the question matched by its normal form, "semantic" if it matched by its embedding vector.
        similarity: Cosine similarity of the questions, 1 for an exact match.
    """

    answer: str
    kind: Literal["exact", "semantic"]
    similarity: float = 1.0


def tenant_of(key: str) -> str:
    """Return a digest that identifies the holder of an API key without revealing the key. Return "" for no key."""
    return hashlib.sha256(key.encode()).hexdigest()[:16] if key else ""


def question_of(
    prompt: Sequence[ChatMessage], max_tokens: int, asker: CacheScope, rules: AnswerCacheSettings
) -> CacheQuestion | CacheRefusal:
    """Return the question at the end of a prompt, or the reason why it must not be looked up.

    Args:
        prompt: The prompt of the reply.
        max_tokens: Maximum length of the answer in tokens. It is a part of the scope.
        asker: The parts of the scope that are not in the prompt.
        rules: Settings that say which questions may be cached.
    """
    if not prompt or prompt[-1].role != "user":
        return CacheRefusal.CONTEXT
    before, text = list(prompt[:-1]), prompt[-1].content
    turns = [at for at, message in enumerate(before) if message.role == "user"]
    if turns:
        later = before[turns[0] :]
        if (
            not rules.later_turns
            or any(message.role in ("system", "tool") for message in later)
            or not stands_alone(text)
        ):
            return CacheRefusal.CONTEXT
        before = before[: turns[0]]
    if not normalize(text) or len(text) > LONGEST_QUESTION:
        return CacheRefusal.LENGTH
    if not rules.allow_personal and personal(text):
        return CacheRefusal.PERSONAL
    if not rules.allow_time_dependent and time_dependent(text):
        return CacheRefusal.TIME
    return CacheQuestion(_scope(before, max_tokens, asker), text, opening=not turns)


def may_store(question: CacheQuestion, answer: str, rules: AnswerCacheSettings) -> bool:
    """Return True if this complete answer may be stored.

    The question must be a first question, and the answer must be neither blank nor longer than LONGEST_ANSWER. An
    answer that changes with time is stored only if the settings allow it.
    """
    if not question.opening or not answer.strip() or len(answer) > LONGEST_ANSWER:
        return False
    return rules.allow_time_dependent or not time_dependent(answer)


def _scope(before: Sequence[ChatMessage], max_tokens: int, asker: CacheScope) -> str:
    digest = hashlib.sha256()
    parts = [asker.tenant, asker.tools, str(max_tokens)]
    for message in before:
        parts += [message.role, message.content, *(f"{call.name}({call.arguments})" for call in message.calls)]
    for part in parts:
        data = part.encode()
        # Each part is preceded by its length, so that the parts "a", "bc" give another digest than "ab", "c".
        digest.update(len(data).to_bytes(8, "big") + data)
    return f"{asker.tenant}:{digest.hexdigest()}"


Key = tuple[str, str]
Group = tuple[str, tuple[str, ...]]


@dataclass(slots=True)
class _Entry:
    answer: str
    group: Group | None
    stored_at: float
    row: int


class AnswerIndex:
    """Index of stored answers. Not thread-safe.

    It stores at most `max_entries` answers, each for `ttl_s` seconds. The least recently used answer is dropped first.
    Times are seconds of one clock.
    """

    def __init__(self, rules: AnswerCacheSettings, dimensions: int) -> None:
        """Create an empty index.

        Args:
            rules: Settings of the cache.
            dimensions: Number of dimensions of the embedding vectors; 0 if questions have no vectors.
        """
        self._rules = rules
        self._entries: OrderedDict[Key, _Entry] = OrderedDict()
        # Entries that `nearest` compares with each other are in one group. A group maps the row of an entry's vector to
        # the entry's key.
        self._groups: dict[Group, dict[int, Key]] = {}
        self._free = list(range(rules.max_entries - 1, -1, -1))
        self._vectors = np.zeros((rules.max_entries, dimensions), np.float32)

    def __len__(self) -> int:
        return len(self._entries)

    def exact(self, question: CacheQuestion, now: float) -> CacheHit | None:
        """Return the stored answer to a question with the same scope and normal form, or None."""
        entry = self._live((question.scope, normalize(question.text)), now)
        return CacheHit(entry.answer, "exact") if entry else None

    def comparable(self, question: CacheQuestion) -> bool:
        """Return True if `nearest` may find an answer. Otherwise the question's vector need not be computed."""
        return self._group(question) in self._groups

    def nearest(self, question: CacheQuestion, vector: Vector, now: float) -> CacheHit | None:
        """Return the answer to the most similar stored question, or None.

        The stored question must have the same scope and a similarity of at least the threshold. With the setting
        `same_words`, it must also have the same content words.

        Args:
            question: The question.
            vector: Its embedding, a unit vector.
            now: The current time in seconds.
        """
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
        """Store an answer. It replaces an earlier answer to the same question.

        Args:
            question: The question.
            vector: Its embedding, a unit vector. None if the entry is to be found by the normal form only.
            answer: The complete answer.
            now: The current time in seconds.
        """
        key = (question.scope, normalize(question.text))
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
        """Drop the answers of one tenant, or all answers for None. Return how many were dropped."""
        dropped = [key for key in self._entries if tenant is None or key[0].startswith(f"{tenant}:")]
        for key in dropped:
            self._drop(key)
        return len(dropped)

    def _group(self, question: CacheQuestion) -> Group | None:
        """Return the key of the group of questions that `nearest` compares with this one.

        The key is the scope and the content words, or with `same_words` off the scope alone. Return None if the
        question has too few content words to be compared.
        """
        if not self._rules.same_words:
            return question.scope, ()
        words = content_words(question.text)
        return (question.scope, words) if tells(words) else None

    def _live(self, key: Key, now: float) -> _Entry | None:
        """Return the entry with this key and mark it as the most recently used. Return None if there is none.

        An expired entry is dropped and counts as missing.
        """
        entry = self._entries.get(key)
        if entry is None:
            return None
        if now - entry.stored_at > self._rules.ttl_s:
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
    """Backoff that pauses cache lookups for PAUSE_S seconds after LATE_IN_A_ROW late or failed lookups in a row.

    Each further late or failed lookup doubles the pause, up to LONGEST_PAUSE_S. Not thread-safe.
    """

    def __init__(self) -> None:
        self._late = 0
        self._until = float("-inf")
        self._pause_s = PAUSE_S

    def waits(self, now: float) -> bool:
        """Return True if no pause is in effect at `now`, so that a lookup may wait for the cache's answer."""
        return now >= self._until

    def answered(self) -> None:
        """Record a lookup that was answered in time. The next pause is PAUSE_S again."""
        self._late, self._pause_s = 0, PAUSE_S

    def late(self, now: float) -> None:
        """Record a lookup that failed or took too long."""
        self._late += 1
        if self._late >= LATE_IN_A_ROW:
            self._until = now + self._pause_s
            self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
