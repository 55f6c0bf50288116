"""Study of how reliably the answer cache matches questions: `python -m benchmarks.studies.answer_study`.

The study has pairs of paraphrases, which should share an answer, and near misses, which must not. It judges each pair
by two rules: the cosine of the embeddings alone, and the answer cache's default of cosine and content words. The word
rule was written for these pairs, so its results are not an estimate for other questions.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from deployments.engines.minilm import MiniLm
from rejoinder.core.reply.question_matching import normalize, same_question
from rejoinder.core.settings.settings import Settings
from rejoinder.store import open_store

PARAPHRASES = (
    ("What time do you open?", "When do you open?"),
    ("What are your opening hours?", "When are you open?"),
    ("What are your opening hours?", "What are the opening hours?"),
    ("How do I reset the password?", "How can I reset a password?"),
    ("Where are you located?", "What is your location?"),
    ("Do you offer free shipping?", "Is shipping free?"),
    ("What is your return policy?", "Tell me about your return policy."),
    ("What is your return policy?", "How does your return policy work?"),
    ("Do you accept credit cards?", "Can I pay by credit card?"),
    ("How can I contact support?", "How do I reach customer support?"),
    ("Is parking available?", "Do you have parking?"),
    ("Do you deliver to Berlin?", "Is delivery to Berlin possible?"),
    ("How long does delivery take?", "How long does shipping take?"),
    ("What is the capital of France?", "What's France's capital?"),
    ("What is the capital of France?", "Which city is the capital of France?"),
    ("Can I cancel an order?", "How do I cancel an order?"),
    ("Do you have vegetarian dishes?", "Are there vegetarian dishes?"),
    ("Who founded the company?", "Who is the founder of the company?"),
    ("How many rooms does the hotel have?", "How many rooms are there in the hotel?"),
    ("Do you have Wi-Fi?", "Is there Wi-Fi?"),
    ("What languages do you support?", "Which languages are supported?"),
    ("Is breakfast included?", "Does it include breakfast?"),
    ("Please tell me how photosynthesis works.", "How does photosynthesis work?"),
    ("Why is the sky blue?", "Can you explain why the sky is blue?"),
)
NEAR_MISSES = (
    ("What time do you open?", "What time do you close?"),
    ("Do you deliver to Berlin?", "Do you deliver to Munich?"),
    ("Can I pay by card?", "Can I pay by cash?"),
    ("Do you accept credit cards?", "Do you not accept credit cards?"),
    ("How do I enable notifications?", "How do I disable notifications?"),
    ("Is the pool open to guests?", "Is the pool closed to guests?"),
    ("What is the capital of France?", "What is the capital of Spain?"),
    ("How do I add a user?", "How do I remove a user?"),
    ("Is breakfast included?", "Is dinner included?"),
    ("Does the plan cover 10 users?", "Does the plan cover 100 users?"),
    ("Do you ship to Canada?", "Do you ship from Canada?"),
    ("Is it safe to take aspirin with alcohol?", "Is it safe to take ibuprofen with alcohol?"),
    ("Can dogs eat grapes?", "Can dogs eat apples?"),
    ("Is the drug safe during pregnancy?", "Is the drug safe after pregnancy?"),
    ("When does the train to Bonn leave?", "When does the train to Bonn arrive?"),
    ("What is the minimum order?", "What is the maximum order?"),
    ("How do I cancel an order?", "How do I place an order?"),
    ("Is delivery free?", "Is delivery to islands free?"),
    ("Do you deliver?", "Do you deliver on Sundays?"),
    ("Who wrote Hamlet?", "Who wrote Macbeth?"),
    ("Where is the entrance?", "Where is the exit?"),
    ("Are children allowed?", "Aren't children allowed?"),
    ("Can I return an item without a receipt?", "Can I return an item with a receipt?"),
    ("What is three plus four?", "What is three plus five?"),
    ("Do you sell shoes for men?", "Do you sell shoes for women?"),
    ("Why do cats chase dogs?", "Why do dogs chase cats?"),
    ("When do you open?", "Where do you open?"),
    ("How much water should a plant get?", "How much light should a plant get?"),
    ("Is the museum open on Monday?", "Is the museum open on Tuesday?"),
    ("How do I turn the alarm on?", "How do I turn the alarm off?"),
    ("What is the fee for early check-in?", "What is the fee for late check-out?"),
    ("How long is the first course?", "How long is the second course?"),
    ("Is there a bus to the airport?", "Is there a bus at the airport?"),
    ("Who can visit the patient?", "Who can the patient visit?"),
    ("Is the shop open at noon?", "Is the shop open until noon?"),
    ("What is a lease?", "What is in a lease?"),
    ("What does a doctor do?", "What is a doctor?"),
    ("What is your name?", "What is in a name?"),
    ("Could you let the room?", "Would you like the room?"),
    ("Did you deliver on Monday?", "Do you deliver on Monday?"),
    ("Should I take the pill at night?", "Can I take the pill at night?"),
    ("Is the key in the box?", "Is the key on the box?"),
    ("Do I have to pay by card?", "Can I pay by card?"),
    ("Who called the doctor?", "Why did you call the doctor?"),
)


@dataclass(frozen=True, slots=True)
class Judged:
    """One pair of questions and how similar they are.

    Attributes:
        one: The first question.
        other: The second question.
        same: True if the two questions should share an answer.
        cosine: Cosine similarity of their embeddings.
        words: True if their content words are equal.
    """

    one: str
    other: str
    same: bool
    cosine: float
    words: bool


@dataclass(frozen=True, slots=True)
class RuleOutcome:
    """Numbers of paraphrases and of near misses that share an answer under one rule."""

    rule: str
    paraphrases: int
    near_misses: int


def judge(engine: MiniLm) -> list[Judged]:
    """Return the cosine and the word comparison of every pair.

    Two questions that differ only in case, punctuation or spaces count as having equal words.
    """
    found = []
    for same, pairs in ((True, PARAPHRASES), (False, NEAR_MISSES)):
        for one, other in pairs:
            cosine = float(engine.embed(one) @ engine.embed(other))
            words = normalize(one) == normalize(other) or same_question(one, other)
            found.append(Judged(one, other=other, same=same, cosine=cosine, words=words))
    return found


def outcomes(pairs: Sequence[Judged], threshold: float) -> list[RuleOutcome]:
    """Return the outcomes of two rules: cosine of at least `threshold`, and the same cosine plus equal words."""
    near = [pair for pair in pairs if pair.cosine >= threshold]
    both = [pair for pair in near if pair.words]
    return [
        RuleOutcome(rule, sum(pair.same for pair in passed), sum(not pair.same for pair in passed))
        for rule, passed in ((f"cosine >= {threshold:g}", near), (f"cosine >= {threshold:g} and equal words", both))
    ]


def main() -> None:
    """Print every pair, highest cosine first, then the outcomes of both rules."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threshold", type=float, default=Settings().answer_cache.threshold)
    parser.add_argument("--compute-type", choices=("int8", "float32"), default="int8")
    parser.add_argument("--json", type=Path, help="write the pairs and the outcomes of both rules")
    options = parser.parse_args()
    settings = Settings()
    form = open_store(settings.models).converted(settings.answer_cache.model, f"ct2-{options.compute_type}")
    pairs = judge(MiniLm(form, compute_type=options.compute_type))
    for pair in sorted(pairs, key=lambda pair: -pair.cosine):
        signs = f"{'same' if pair.same else 'other':5} {'equal words' if pair.words else '':11}"
        print(f"{pair.cosine:.3f} {signs} {pair.one} | {pair.other}")
    found = outcomes(pairs, options.threshold)
    for outcome in found:
        same, other = f"{outcome.paraphrases} of {len(PARAPHRASES)}", f"{outcome.near_misses} of {len(NEAR_MISSES)}"
        print(f"{outcome.rule}: {same} paraphrases share an answer, and {other} near misses")
    if options.json:
        document = {"pairs": [asdict(pair) for pair in pairs], "rules": [asdict(outcome) for outcome in found]}
        options.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
