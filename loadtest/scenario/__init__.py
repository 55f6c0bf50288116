"""Definition of a load run: the scenario, its frozen schedule, the callers' audio, and the emulated network.

Nothing here does network input or output. The package imports only `rejoinder.core` and `rejoinder.store`; the callers,
the generator, the capacity model and the command line import it. Start at `scenario.py`, then read `schedule.py`.
"""
