"""The page with which a person talks to the server in a browser."""
