"""From the caller's audio to the end of a turn.

Holds the audio input, the voice-activity tick, interim transcripts and the end-of-turn request. Start at
`end_of_turn.py`. Imports `actors.stages` and the core; `actors.replying` and `actors.turn_taking` import it.
"""
