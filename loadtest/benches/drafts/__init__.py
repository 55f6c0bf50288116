"""Bench of discarded speculative replies ("drafts"): the code of `rejoinder bench drafts`.

Callers pause in the middle of their turns. A speculative reply starts in the pause and must be discarded when the
caller continues. None of its audio may reach the caller. Emulated engines mark every word and every 10 ms of audio with
the length of the speech that they answer, so the bench can tell which speech an answer belongs to. Start at `run.hold`
for the calls, at `evidence` for the checks, and at `verdict` for the settings and the rule for passing.
"""
