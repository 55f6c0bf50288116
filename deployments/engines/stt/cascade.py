"""Speech recognition in two hearings: a small model first, and the large one for what the small one is not sure of.

Most of what callers say is easy, and a small model transcribes it in a third of the time. What it is not sure of (by
the mean log-probability of its words, and by the guards of every transcript) the large model hears again, as if the
small one had not been there. A partial is a guess anyway: it is heard once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from deployments.engines.pcm import Pcm
from deployments.engines.stt.moonshine import Moonshine
from deployments.engines.stt.transcript_guards import Hypothesis, is_trustworthy
from deployments.engines.stt.whisper import WhisperResult


class Recognizer(Protocol):
    """What transcribes alone."""

    name: str

    def warm_up(self) -> None: ...
    def transcribe_batch(self, clips: Sequence[Pcm]) -> list[WhisperResult]: ...


@dataclass(frozen=True, slots=True)
class CascadeResult:
    """`text` is stripped, and empty if nobody spoke. `repeated`: the first hearing was in doubt; `doubted`: it is, and
    was not repeated.

    `full_padding`: Whisper decoded it with 30 s of frames. `tokens`: the first hearing's.
    """

    text: str
    avg_logprob: float
    repeated: bool = False
    doubted: bool = False
    full_padding: bool = False
    tokens: tuple[int, ...] = ()


class SttCascade:
    """The large model, and before it the small one if there is one."""

    def __init__(self, careful: Recognizer, quick: Moonshine | None = None, doubt_below: float = 0.0) -> None:
        """`doubt_below`: a first hearing whose words have a lower mean log-probability is repeated."""
        self.name = careful.name if quick is None else f"{quick.name}, in doubt {careful.name}"
        self._careful = careful
        self._quick = quick
        self._doubt_below = doubt_below

    def warm_up(self) -> None:
        """So that no caller pays for first-call allocation."""
        self._careful.warm_up()
        if self._quick is not None:
            self._quick.warm_up()

    def transcribe_batch(
        self, clips: Sequence[Pcm], *, partial: bool = False, guess: tuple[int, ...] = ()
    ) -> list[CascadeResult]:
        """The transcript of each clip (16 kHz, at most 30 s); `partial`: one hearing is enough. `guess`: the tokens of
        an earlier, shorter part of a single clip.

        Raises CallerError for malformed PCM or more than 30 s of it, BackendError if an engine fails.
        """
        if self._quick is None:
            return [_heard(decoded) for decoded in self._careful.transcribe_batch(clips)]
        first = self._quick.transcribe_batch(clips, guess)
        heard = [
            CascadeResult(
                said.hypothesis.text,
                said.hypothesis.avg_logprob,
                doubted=not self.sure(said.hypothesis),
                tokens=said.tokens,
            )
            for said in first
        ]
        doubtful = [] if partial else [at for at, said in enumerate(heard) if said.doubted]
        again = self._careful.transcribe_batch([clips[at] for at in doubtful])
        for at, decoded in zip(doubtful, again, strict=True):
            heard[at] = _heard(decoded, repeated=True)
        return heard

    def sure(self, hypothesis: Hypothesis) -> bool:
        """Whether a first hearing stands."""
        worded = any(character.isalnum() for character in hypothesis.text)
        return worded and hypothesis.avg_logprob >= self._doubt_below and is_trustworthy(hypothesis)


def _heard(decoded: WhisperResult, *, repeated: bool = False) -> CascadeResult:
    return CascadeResult(decoded.text, decoded.avg_logprob, repeated=repeated, full_padding=decoded.full_padding)
