"""Simulated and scripted callers, their WebSocket connections, and their simulated loudspeakers.

`SimulatedCaller` serves load runs: thousands of callers in one process, without keeping audio. `ScriptedCaller` serves
`rejoinder talk` and the benchmarks: one conversation with its audio and a record of every turn. The package imports
`rejoinder.core`, `rejoinder.store`, `loadtest.scenario` and `loadtest.results`; the generator, the judging, the
benchmarks and the command line import it. Start at `simulated_caller.py`.
"""
