"""What a reply consists of and when it is played: prompt, segments, playout, prepared clips, drafts, cache.

Every module is a pure decision or a small state machine. Start at `segmenter.py` (text to speech segments) and
`playout.py` (what the caller has heard). Within the core only `wire` imports this package. `actors.replying` carries
the decisions out.
"""
