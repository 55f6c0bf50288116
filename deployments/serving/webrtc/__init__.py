"""HTTP routes of calls over WebRTC, and the set of the calls of one host."""
