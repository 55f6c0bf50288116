"""Bench of discarded speculative replies ("drafts"), behind `rejoinder bench drafts`.

Callers pause in the middle of their turns. A speculative reply starts in the pause and must be discarded when the
caller goes on. None of its audio may reach the caller. Emulated engines mark every word and every 10 ms of audio with
the length of the speech they answer, so the bench can tell. Start at `run.hold` for the calls, at `evidence` for the
proof, and at `verdict` for the settings and the rule to pass.
"""
