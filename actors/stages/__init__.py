"""How a conversation calls the stages: their ports, retries, hedging and replica health.

Start at `ports.py`, the protocols that `deployments` implements. Every other package of `actors` imports this one; it
imports the core only.
"""
