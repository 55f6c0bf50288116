"""Tests of MiniLM: its vectors equal those of transformers.

With the answer cache's default threshold, questions with different meanings share no answer.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from benchmarks.studies.answer_study import NEAR_MISSES, PARAPHRASES, judge, outcomes
from deployments.engines.minilm import DIMENSIONS, MiniLm
from rejoinder.core.errors import ModelError
from rejoinder.core.settings.settings import AnswerCacheSettings
from rejoinder.store.model_store import ModelStore

pytestmark = [pytest.mark.models, pytest.mark.timeout(300)]

MODEL = AnswerCacheSettings().model
LEAST_COSINE = {"float32": 0.9999, "int8": 0.98}
LONG = "Can I return a pair of shoes that was bought in another shop of yours, if the box is damaged? " * 20


def reference(folder: Path, texts: list[str]) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """Return vectors as sentence-transformers computes them: the mean of the last states, scaled to length 1."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder)
    rows = []
    for text in texts:
        with torch.no_grad():
            states = model(**tokenizer([text], return_tensors="pt", truncation=True, max_length=256))[0][0]
        rows.append((states.mean(0) / states.mean(0).norm()).numpy())
    return np.stack(rows)


@pytest.mark.parametrize("compute_type", ["float32", "int8"])
def test_it_equals_the_original(store: ModelStore, compute_type: str) -> None:
    """The cosine to transformers' vector is at least 0.9999 in float32 and 0.98 in int8, for texts of any length."""
    texts = [*(question for pair in PARAPHRASES for question in pair), "Hi", LONG]
    engine = MiniLm(store.converted(MODEL, f"ct2-{compute_type}"), compute_type=compute_type)
    ours = np.stack([engine.embed(text) for text in texts])
    cosines = (ours * reference(store.path(MODEL), texts)).sum(axis=1)
    print(f"{compute_type}: cosine to the original {cosines.min():.5f} at least, {cosines.mean():.5f} on average")
    assert ours.shape == (len(texts), DIMENSIONS)
    assert np.allclose(np.linalg.norm(ours, axis=1), 1, atol=1e-5)
    assert cosines.min() >= LEAST_COSINE[compute_type]


def test_no_near_miss_shares_an_answer(store: ModelStore) -> None:
    """At the default threshold, the cosine and the word rule together accept no question with another meaning.

    The cosine alone accepts some. At least a quarter of the paraphrases still share an answer.
    """
    rules = AnswerCacheSettings()
    engine = MiniLm(store.converted(MODEL, f"ct2-{rules.compute_type}"), compute_type=rules.compute_type)
    cosine, words = outcomes(judge(engine), rules.threshold)
    for outcome in (cosine, words):
        print(
            f"{outcome.rule}: {outcome.paraphrases} of {len(PARAPHRASES)} paraphrases and "
            f"{outcome.near_misses} of {len(NEAR_MISSES)} near misses share an answer"
        )
    assert cosine.near_misses > 0, "the word rule has no effect"
    assert words.near_misses == 0
    assert words.paraphrases >= len(PARAPHRASES) // 4


def test_another_folder_is_refused(store: ModelStore, tmp_path: Path) -> None:
    """An empty folder and the unconverted model raise a ModelError that names the command to run."""
    for folder in (tmp_path, store.path(MODEL)):
        with pytest.raises(ModelError, match="models pull"):
            MiniLm(folder)
