"""The webhook endpoint for Stripe; see https://docs.stripe.com/webhooks#verify-manually."""

import hashlib
import hmac
import re
import time

from fastapi import APIRouter, Request
from pydantic import SecretStr, ValidationError

from dozen_credits.errors.payments import InvalidEvent, InvalidSignature
from dozen_credits.schemas.stripe import payment_event
from dozen_credits.service.payments import Payments

PATH = "/webhooks/stripe"
MAX_BODY_BYTES = 256 * 1024
TOLERANCE_SECONDS = 300

_TIME = re.compile(r"[0-9]{1,12}\Z")


def router(payments: Payments, secret: SecretStr) -> APIRouter:
    """Serve Stripe's webhook."""
    routes = APIRouter()
    key = secret.get_secret_value().encode()

    @routes.post(PATH)
    async def receive_event(request: Request) -> dict[str, bool]:
        body = await request.body()
        verify(body, request.headers.get("stripe-signature", ""), key, time.time())
        try:
            event = payment_event(body)
        except ValidationError as error:
            raise InvalidEvent() from error
        await payments.receive(event)
        return {"received": True}

    return routes


def verify(body: bytes, header: str, key: bytes, now: float) -> None:
    """Check an event's signature: `t` is when it was signed, and any of the `v1` may fit."""
    fields = [part.strip().partition("=") for part in header.split(",")]
    times = [value for name, _, value in fields if name == "t" and _TIME.match(value)]
    signatures = [value.encode("utf-8", "replace") for name, _, value in fields if name == "v1"]
    if len(times) != 1 or not signatures:
        raise InvalidSignature("The header `Stripe-Signature` is missing, or not of the form `t=…,v1=…`.")
    signed = hmac.digest(key, f"{times[0]}.".encode() + body, hashlib.sha256).hex().encode()
    if not any(hmac.compare_digest(signed, signature) for signature in signatures):
        raise InvalidSignature("No signature of this event fits the secret of this endpoint.")
    if abs(now - int(times[0])) > TOLERANCE_SECONDS:
        raise InvalidSignature("This event was signed more than five minutes from now.")
