"""Settings of telephone calls: Twilio, what the agent may do in them, and the keypad."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints, model_validator

from rejoinder.core.settings.section import Positive, Section, ServerUrl

DestinationName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9_-]{1,40}$")]
DestinationNumber = Annotated[str, StringConstraints(min_length=1, max_length=200, strip_whitespace=True)]


class TwilioSettings(Section):
    """Calls of Twilio over Media Streams (docs/how-to/telephony.md)."""

    enabled: bool = False
    """Answer `POST /v1/telephony/twilio/voice` with TwiML, and accept streams at `/v1/telephony/twilio/stream`."""
    public_url: ServerUrl = ""
    """Address of this system as Twilio reaches it, such as https://voice.example.com. Twilio signs it, so it must be
    exact, also behind proxies. Required if `enabled`.
    """
    auth_token: str = Field("", repr=False)
    """Auth token of the Twilio account, which signs Twilio's requests. `rejoinder serve` sets it from the variable
    `auth_token_env`; write none into a file.
    """
    auth_token_env: str = "REJOINDER_TWILIO_AUTH_TOKEN"
    """Environment variable with the auth token, the same on every host. Without it, no host starts if `enabled`."""
    ticket_s: Positive = 60.0
    """Seconds that a call has to open its stream after the answer of `/voice`."""
    sessions: int = Field(0, ge=0)
    """Maximum number of concurrent calls of Twilio on each host. 0: only `host.max_sessions` limits them."""
    new_per_minute: int = Field(0, ge=0)
    """Maximum number of new calls of Twilio in a minute on each host. 0: no limit."""

    @model_validator(mode="after")
    def _complete(self) -> TwilioSettings:
        if self.enabled and not self.public_url:
            raise ValueError("public_url is missing: Twilio signs the address that it calls, so it must be known")
        return self


class PhoneWebhookSettings(Section):
    """Server of the operator that hands callers over, because only the operator's exchange can do so."""

    url: ServerUrl = ""
    """Address that gets a POST request with JSON for each transfer. Empty: the agent cannot transfer calls."""
    timeout_s: float = Field(5.0, gt=0, le=60)
    """Seconds until a webhook that does not answer has failed. The agent then tells the caller."""
    secret: str = Field("", repr=False)
    """Secret that signs the requests. `rejoinder serve` sets it from the variable `secret_env`."""
    secret_env: str = "REJOINDER_PHONE_WEBHOOK_SECRET"
    """Environment variable with the secret. If it is set, the header X-Rejoinder-Signature has `sha256=` and the
    HMAC-SHA-256 of the body in hexadecimal digits.
    """


class TelephonySettings(Section):
    """Telephone calls. Nothing of it is active unless it is configured."""

    twilio: TwilioSettings = TwilioSettings()
    """Calls that reach the system over Twilio Media Streams."""
    instructions: str = Field("", max_length=100_000)
    """System prompt of telephone calls. Empty: `conversation.instructions`."""
    hang_up: bool = False
    """Give the language model the tool `hang_up`, which ends the call when its goodbye was played."""
    transfer_to: dict[DestinationName, DestinationNumber] = Field(default_factory=dict, max_length=64)
    """Numbers or addresses that the agent may transfer a caller to, by the names that the language model uses:
    `sales: "+4930123456"`. It can choose no other. Each transfer goes to `webhook.url`.
    """
    webhook: PhoneWebhookSettings = PhoneWebhookSettings()
    """Server of the operator that gets the transfers."""
    keypad_pause_ms: float = Field(2000, ge=200, le=20_000)
    """Milliseconds after the last key of the telephone's keypad until the keys become a turn of the caller. # ends them
    at once.
    """

    @model_validator(mode="after")
    def _transfers(self) -> TelephonySettings:
        if self.transfer_to and not self.webhook.url:
            raise ValueError("transfer_to needs webhook.url, which gets the transfers")
        return self
