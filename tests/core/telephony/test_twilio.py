"""Tests of Twilio's signatures, tickets, TwiML and messages."""

from __future__ import annotations

import base64
import json
from typing import Any
from xml.etree import ElementTree

import pytest

from rejoinder.core.errors import CallerError
from rejoinder.core.telephony import twilio_messages as twilio
from rejoinder.core.telephony import twiml
from rejoinder.core.telephony.twilio_signature import is_signed, signature_of

# The example of Twilio's documentation of its signatures.
TOKEN = "12345"
URL = "https://mycompany.com/myapp.php?foo=1&bar=2"
FORM = (
    ("CallSid", "CA1234567890ABCDE"),
    ("Caller", "+14158675309"),
    ("Digits", "1234"),
    ("From", "+14158675309"),
    ("To", "+18005551212"),
)
RIGHT = "RSOYDt4T1cUTdK1PDd93/VVr8B8="


def test_the_example_of_twilios_documentation_is_signed_as_it_says() -> None:
    """The signature of Twilio's documented example is reproduced, in any order of the fields."""
    assert signature_of(TOKEN, URL, FORM) == RIGHT
    assert signature_of(TOKEN, URL, FORM[::-1]) == RIGHT


@pytest.mark.parametrize(
    ("signature", "token", "url", "form", "accepted"),
    [
        pytest.param(RIGHT, TOKEN, URL, FORM, True, id="right"),
        pytest.param(RIGHT, TOKEN, URL.replace(".com/", ".com:443/"), FORM, True, id="default port"),
        pytest.param(RIGHT, TOKEN, URL.replace(".com/", ".com:8443/"), FORM, False, id="other port"),
        pytest.param(RIGHT, TOKEN, URL.replace("https", "http"), FORM, False, id="other scheme"),
        pytest.param(RIGHT, TOKEN, URL.replace("bar=2", "bar=3"), FORM, False, id="other query"),
        pytest.param(RIGHT, TOKEN, URL, FORM[1:], False, id="missing field"),
        pytest.param(RIGHT, TOKEN, URL, (*FORM, ("x", "")), False, id="further field"),
        pytest.param(RIGHT, "54321", URL, FORM, False, id="other token"),
        pytest.param(f"{RIGHT[:-2]}4=", TOKEN, URL, FORM, False, id="wrong"),
        pytest.param("", TOKEN, URL, FORM, False, id="missing"),
        pytest.param("ä" * 28, TOKEN, URL, FORM, False, id="not ASCII"),
        pytest.param(signature_of("", URL, FORM), "", URL, FORM, False, id="no token configured"),
    ],
)
def test_signatures(signature: str, token: str, url: str, *, form: Any, accepted: bool) -> None:
    """Only the signature of exactly this address, form and token is accepted. The default port may be left out."""
    assert is_signed(signature, token, url, form) is accepted


def test_a_ticket_is_good_for_its_call_until_it_expires() -> None:
    """A ticket is read with its key and call only, unchanged, and before its expiry."""
    ticket = twiml.StreamTicket("CA1", "+1", "+2", attempt=3, expires_at=100)
    key = twiml.ticket_key("token")
    text = twiml.sign_ticket(ticket, key)
    assert twiml.read_ticket(text, key, "CA1", 99) == ticket
    assert twiml.read_ticket(text, key, "CA1", 100) is None
    assert twiml.read_ticket(text, key, "CA2", 99) is None
    assert twiml.read_ticket(text, twiml.ticket_key("other"), "CA1", 99) is None
    assert twiml.read_ticket(f"{text}A", key, "CA1", 99) is None
    assert twiml.read_ticket("", key, "CA1", 99) is None


def test_the_answer_connects_and_asks_again() -> None:
    """The TwiML has the stream with its ticket and then the redirect. Signs of XML in addresses are escaped."""
    document = ElementTree.fromstring(twiml.connect_answer("wss://a/s", "t<", "https://a/v?x=1&attempt=1"))
    assert [child.tag for child in document] == ["Connect", "Redirect"]
    stream = document[0][0]
    assert (stream.tag, stream.get("url")) == ("Stream", "wss://a/s")
    assert (stream[0].get("name"), stream[0].get("value")) == (twiml.TICKET, "t<")
    assert document[1].text == "https://a/v?x=1&attempt=1"
    late = ElementTree.fromstring(twiml.connect_answer("wss://a/s", "t", attempt=twiml.PAUSE_FROM))
    assert [child.tag for child in late] == ["Pause", "Connect"]
    assert ElementTree.fromstring(twiml.hang_up_answer())[0].tag == "Hangup"


START = {
    "event": "start",
    "sequenceNumber": "1",
    "start": {
        "accountSid": "AC1",
        "streamSid": "MZ1",
        "callSid": "CA1",
        "tracks": ["inbound"],
        "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
        "customParameters": {"rejoinder_ticket": "pt_x"},
    },
    "streamSid": "MZ1",
}


def _media(payload: str, track: str = "inbound") -> dict[str, Any]:
    media = {"track": track, "chunk": "2", "timestamp": "20", "payload": payload}
    return {"event": "media", "sequenceNumber": "3", "media": media, "streamSid": "MZ1"}


@pytest.mark.parametrize(
    ("message", "read"),
    [
        ({"event": "connected", "protocol": "Call", "version": "1.0.0"}, twilio.StreamConnected()),
        (START, twilio.StreamStarted("MZ1", "CA1", {"rejoinder_ticket": "pt_x"})),
        (_media(base64.b64encode(bytes(range(160))).decode()), twilio.CallerMedia(bytes(range(160)))),
        (_media("AAAA", "outbound"), None),
        ({"event": "mark", "streamSid": "MZ1", "mark": {"name": "p1"}}, twilio.MarkReturned("p1")),
        (
            {"event": "dtmf", "streamSid": "MZ1", "dtmf": {"track": "inbound_track", "digit": "#"}},
            twilio.KeyPressed("#"),
        ),
        ({"event": "stop", "streamSid": "MZ1", "stop": {"callSid": "CA1"}}, twilio.StreamStopped()),
        ({"event": "of-the-future"}, None),
    ],
    ids=["connected", "start", "media", "outbound", "mark", "dtmf", "stop", "unknown"],
)
def test_messages(message: dict[str, Any], read: twilio.StreamMessage | None) -> None:
    """Every message of Twilio is read. The agent's own track and kinds that are not known are ignored."""
    assert twilio.read_message(json.dumps(message)) == read


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("{", "JSON"),
        ("[1]", "object"),
        ("{}", "event"),
        ('{"event": 1}', "event"),
        ('{"event": "media"}', "media.payload"),
        ('{"event": "media", "media": {"payload": "A"}}', "media.payload"),
        ('{"event": "media", "media": {"payload": "AAA\\"}}"}}', "media.payload"),
        ('{"event": "media", "media": 1}', "media"),
        ('{"event": "mark", "mark": {}}', "mark.name"),
        ('{"event": "dtmf", "dtmf": {"digit": "12"}}', "dtmf.digit"),
        ('{"event": "start", "start": {"streamSid": "MZ1"}}', "start.callSid"),
        (json.dumps(START).replace("8000", "16000"), "start.mediaFormat.sampleRate"),
        (json.dumps(START).replace("x-mulaw", "x-opus"), "start.mediaFormat.encoding"),
        ("[" * 100_000, "bytes"),
        ("[" * 60_000, "JSON"),
    ],
)
def test_malformed_messages_are_refused(text: str, named: str) -> None:
    """A malformed message is refused with an error that names what is wrong, and with no other exception."""
    with pytest.raises(CallerError, match=named):
        twilio.read_message(text)
