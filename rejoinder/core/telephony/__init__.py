"""Telephone calls: what a call means as a Realtime session, and the formats of Twilio and of Asterisk's AudioSocket.

Read `phone_call.py` first: it is a Realtime client that plays a session on a telephone. The other modules are its parts
and the two wire formats.
"""
