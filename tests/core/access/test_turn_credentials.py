"""Tests of short-lived credentials for TURN servers."""

from rejoinder.core.access.turn_credentials import turn_credentials


def test_the_password_signs_the_time_of_expiry() -> None:
    """User name and password are what `echo -n NAME | openssl dgst -sha1 -hmac SECRET -binary | base64` gives."""
    name, password = turn_credentials("north", 86_400, 1_700_000_000.5)
    assert name == "1700086400:rejoinder"
    assert password == "gkY600+FYovhRTYd55JhyXaHGfE="
