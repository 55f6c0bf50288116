"""HTTP routes of single stages on the session hosts: transcriptions, speech and chat completions.

They use the ports that the host's calls use, so no engine is loaded twice.
"""
