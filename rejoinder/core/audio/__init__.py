"""Audio arithmetic on arrays: PCM conversion, a ring buffer, resampling and G.711.

This package imports no other package of the project, and every layer may import it. Start at `pcm.py`, which defines
the sample rates and how audio is addressed.
"""
