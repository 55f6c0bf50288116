"""Corpus of turn-taking events: turns with pauses inside, speech and noise over a reply, and background speech.

The recipe (`recipe.py`) lists every event; `manifest.jsonl` is its output, for reading and for comparison. Audio is
made on demand (`audio.py`) from human clips, from synthetic voices of Debian packages and Piper, and from computed
noises, into a cache. Nothing is random: the same packages give the same samples.

The package imports `rejoinder.core` and `rejoinder.store`; the benchmarks and the command line import it. Start at
`event.py`.
"""
