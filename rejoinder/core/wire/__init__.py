"""The OpenAI Realtime protocol (GA) without I/O.

This package contains the parser of client events, the session object, the conversation items and the server events. A
session emits server events as dicts whose audio is raw bytes; a transport encodes them. Everything outside `core` may
import this package. Start reading at `client.py` and `server.py`. The events have the fields and types that
openai-python and other clients validate.
"""
