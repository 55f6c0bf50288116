"""How a conversation calls the stages: ports, retries, hedging, replica health, and objects that sessions share.

Start at `ports.py`, the protocols that `deployments` implements, then `retry.py`. Every other package of `actors` may
import this one. It imports the core only.
"""
