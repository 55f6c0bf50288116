"""The OpenAI Realtime protocol (GA) without I/O.

It contains the parser of client events, the session object, the conversation items and the server events. A session
emits server events as dicts whose audio is raw bytes; a transport encodes them. Everything outside `core` may import
this package. Start reading at `client.py` and `server.py`. The shapes follow openai-python's event models and the
validators of its clients.
"""
