"""Comparison of the sessions that one CPU core carries: Rejoinder, LiveKit Agents and Pipecat, with the same harness.

What is measured: a contender, which is one of the compared systems, runs on one core, and the harness sends real-time
audio to it from another core. The engines of all contenders take the same fixed times. The ideal reply of a turn is the
reply that an infinitely fast machine would give with the contender's own turn rules. The added latency is the time from
the ideal reply to the first audible sample of the real one (`timing`).

The rule: the result of a contender is the largest number of sessions that passes three times (`knee`). A run passes if
the 95th percentile of the added latency is at most 50 ms, and no turn is missed. Replies that belong to no turn fail
the run too. A run is INVALID, and repeated, if the harness was late or other processes used the contender's core.

How to run it, for one contender or for all (about ten minutes each, two cores required):

    python -m benchmarks.frameworks --only ours-headless
    python -m benchmarks.frameworks --json frameworks.json

`livekit_agent.py` and `pipecat_bot.py` run in separate Python environments, with the versions of `requirements-*.txt`.
The harness creates these environments in the user's cache at the first use. The two modules and `contender`, which
implements their side of the protocol, must not import anything from Rejoinder. All other modules run in our
environment.

Reading order: `contestants` (who is compared), `trial` (one run), `timing` (the rule), `knee` (the search),
`comparison` (the table).
"""
