"""Calls over WebRTC: events on a data channel, and speech as Opus in real time.

Read `call.py` first, one call. `peer.py` is the seam to the WebRTC library, `aiortc_peer.py` the connection that aiortc
makes. Importing this package needs no WebRTC library: it is imported with the first call.
"""
