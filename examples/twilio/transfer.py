"""Webhook that transfers calls at Twilio. Run it with the variables below, beside `rejoinder serve`."""

import base64
import hashlib
import hmac
import json
import os
from html import escape
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import urlencode
from urllib.request import Request, urlopen

SECRET = os.environ["REJOINDER_PHONE_WEBHOOK_SECRET"].encode()
ACCOUNT, TOKEN = os.environ["TWILIO_ACCOUNT_SID"], os.environ["REJOINDER_TWILIO_AUTH_TOKEN"]
API = os.environ.get("TWILIO_API", "https://api.twilio.com")
LOGIN = base64.b64encode(f"{ACCOUNT}:{TOKEN}".encode()).decode()


class Transfer(BaseHTTPRequestHandler):
    """Handler of one transfer."""

    def do_POST(self) -> None:
        """Check the signature, and let Twilio dial the destination instead of the stream."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        signature = "sha256=" + hmac.new(SECRET, body, hashlib.sha256).hexdigest()
        if not hmac.compare_digest(signature, self.headers.get("X-Rejoinder-Signature", "")):
            self.send_error(403)
            return
        asked = json.loads(body)
        twiml = f"<Response><Dial>{escape(asked['to'])}</Dial></Response>"
        call = f"{API}/2010-04-01/Accounts/{ACCOUNT}/Calls/{asked['call_id']}.json"
        urlopen(Request(call, urlencode({"Twiml": twiml}).encode(), {"Authorization": f"Basic {LOGIN}"}), timeout=4)
        self.send_response(204)
        self.end_headers()


HTTPServer(("127.0.0.1", int(os.environ.get("PORT", "8090"))), Transfer).serve_forever()
