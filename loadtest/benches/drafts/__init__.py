"""Bench of discarded speculative replies ("drafts"): the code of `rejoinder bench drafts`.

Callers pause in the middle of their turns. A speculative reply starts in the pause and must be discarded when the
caller continues. None of its audio may reach the caller. Emulated engines put a watermark into every word and every 10
ms of audio: the length of the speech that is answered. The bench can thus tell which speech an answer belongs to.

Start at `run.hold` for the calls, at `evidence` for the checks, and at `verdict` for the settings and the rule for
passing.
"""
