"""How many conversations one core holds: ours and the two leading frameworks, by one rule and one harness.

`contender` is what runs inside each framework's own environment; everything else runs in ours.
"""
