"""How audio and events reach a session. Start at `realtime_ws.py`, the OpenAI Realtime WebSocket."""
