"""From the caller's audio to the end of a turn.

Contains the audio input, the voice activity tick, interim transcripts and the end-of-turn request. Start at
`audio_input.py`, then `end_of_turn.py`. It imports `actors.stages` and the core; `actors.replying`,
`actors.turn_taking` and the modules of `actors` may import it.
"""
