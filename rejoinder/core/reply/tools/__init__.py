"""Tools: functions of the client that the language model may call, and the calls that it makes.

`calls.py` has the types and checks calls. `fragments.py` puts the calls of a streamed chat completion together.
`written.py` finds calls in the text of a model. `schema_values.py` makes the smallest value that fits a JSON schema.
"""
