"""Benches of single features: the code of `rejoinder bench`. Each bench has settings, results and a rule for passing.

- `ablation` measures what each latency technique saves.
- `hedge_ab` compares hedging on and off.
- `barge_in` measures how fast a reply stops.
- `drafts` looks for audio of discarded speculative replies.

The command line imports this package and runs the servers. The package imports `loadtest.callers`,
`loadtest.generator` and the packages below them. The benches are independent, so start with the one you need.
"""
