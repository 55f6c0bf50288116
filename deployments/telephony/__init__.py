"""Telephone calls on a session host: the routes for Twilio, its streams, and the operator's webhook."""
