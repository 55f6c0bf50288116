"""OpenAI Realtime (GA) without I/O: reading client events, the session object, conversation items, server events.

The vocabulary of this wire is also the session's own: a session emits server events as dicts whose audio is raw
bytes, and a transport encodes them. Source of every shape: openai-python's event models and its clients' validators.
"""
