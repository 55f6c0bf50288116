"""The operator's webhook, which hands callers over."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
from dataclasses import dataclass

import httpx2

from rejoinder.core.telephony.phone_tools import Transfer

logger = logging.getLogger(__name__)

ACCEPTED = "The transfer has been accepted. The caller is being put through."
FAILED = "The transfer failed. Tell the caller that nobody can be reached now."


@dataclass(frozen=True, slots=True)
class PhoneWebhook:
    """Client of the operator's webhook.

    Attributes:
        url: Its address.
        timeout_s: Seconds until a request has failed.
        secret: Secret that signs the requests; "" for no signature.
    """

    url: str
    timeout_s: float
    secret: str = ""

    async def transfer(self, transfer: Transfer, call: str, caller: str) -> str:
        """Ask the webhook to hand a caller over. Return the result in words for the language model. Never raises.

        Redirects are not followed, and the answer's body is not used.

        Args:
            transfer: What the model has asked for.
            call: Id of the call at Twilio or Asterisk.
            caller: Number of the caller; "" if it is not known.
        """
        body = json.dumps(
            {
                "event": "transfer",
                "call_id": call,
                "caller": caller,
                "destination": transfer.destination,
                "to": transfer.number,
                "reason": transfer.reason,
            }
        ).encode()
        headers = {"Content-Type": "application/json"}
        if self.secret:
            mac = hmac.new(self.secret.encode(), body, hashlib.sha256).hexdigest()
            headers["X-Rejoinder-Signature"] = f"sha256={mac}"
        try:
            async with (
                httpx2.AsyncClient(timeout=self.timeout_s) as client,
                client.stream("POST", self.url, content=body, headers=headers) as response,
            ):
                accepted = response.is_success
                status = f"status {response.status_code}"
        except (httpx2.HTTPError, httpx2.InvalidURL) as fault:
            accepted, status = False, repr(fault)
        if not accepted:
            logger.warning("the webhook for transfers failed: %s", status)
        return ACCEPTED if accepted else FAILED
