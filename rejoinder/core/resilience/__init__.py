"""Resilience of the stages and the host: hedged requests, circuit breakers, deadline queues and admission control.

All modules are pure state machines. Start at `hedging.py`. Within the core only `reply` imports this package.
`actors.stages` and `actors.host` carry the decisions out.
"""
