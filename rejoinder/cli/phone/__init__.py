"""`rejoinder phone`: a gateway between Asterisk's AudioSocket and a server."""
