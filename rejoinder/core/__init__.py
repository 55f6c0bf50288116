"""The pure core: every decision of the product, without a clock, I/O, randomness or asyncio.

Start at `turns/machine.py` (turn-taking), `resilience/hedging.py` and `settings/settings.py`. Everything may import
this package; it imports only numpy, and pydantic for the settings. `errors.py` holds the typed errors.
"""
