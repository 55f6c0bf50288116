"""Turn-taking: when the caller's turn ends, and when the agent replies, pauses and stops.

Start at `machine.py`, which explains the states, events and commands of the turn machine. `speech_detector.py` reports
where speech starts, ends and resumes. `end_of_turn.py` computes the probability that a turn is over, and
`endpointing.py` the silence that ends it. `barge_in.py` classifies the words of speech over a reply, and
`interruptions.py` pauses, resumes or cancels the reply. Within the core only `wire` imports this package.
`actors.turn_taking` carries the commands out.
"""
