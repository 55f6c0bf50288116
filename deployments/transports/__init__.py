"""Transports: they carry audio and events between a client's connection and its session.

Read `realtime_ws.py` first, the OpenAI Realtime protocol over WebSocket. `call_protocol.py` is the connection below it.
The HTTP routes (`deployments/serving/http_routes.py`) and the session host import this package.
"""
