"""Audio arithmetic on arrays: PCM, resampling and G.711. Start at `pcm.py`. Imports nothing of ours."""
