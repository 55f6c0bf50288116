"""The pure core: every decision of the product, without a clock, I/O, randomness or asyncio.

Every other package may import this one. It imports only numpy, and pydantic in `settings`. Start reading at
`turns/machine.py` (turn-taking), `resilience/hedging.py` (hedged requests) and `settings/settings.py` (the
configuration). `errors.py` defines the typed errors.
"""
