"""Stripe's events, as far as they matter here; see https://docs.stripe.com/api/events/object."""

from typing import Annotated

from pydantic import BaseModel, Field

from dozen_credits.domain.payments import Reversal, TopUp

_Id = Annotated[str, Field(pattern=r"^[A-Za-z0-9_]{1,200}$")]
_Amount = Annotated[int, Field(ge=0, lt=10**15)]


class _Kind(BaseModel):
    type: str


class _Session(BaseModel):
    id: _Id
    payment_intent: _Id | None = None
    payment_status: str
    client_reference_id: str | None = None
    metadata: dict[str, str] | None = None
    currency: str | None = None
    amount_total: _Amount | None = None

    def event(self) -> TopUp | None:
        account_id = self.client_reference_id or (self.metadata or {}).get("account_id")
        if self.payment_status != "paid" or not (account_id and self.currency and self.amount_total):
            return None  # not paid yet, or for something else than credits
        payment = f"stripe:{self.payment_intent or self.id}"
        return TopUp(payment, account_id, self.currency, self.amount_total)


class _Charge(BaseModel):
    payment_intent: _Id | None = None
    amount: _Amount
    amount_refunded: _Amount

    def event(self) -> Reversal | None:
        if not (self.payment_intent and self.amount):
            return None  # not of a checkout
        return Reversal(f"stripe:{self.payment_intent}", self.amount_refunded, self.amount)


class _SessionData(BaseModel):
    object: _Session


class _ChargeData(BaseModel):
    object: _Charge


class _SessionEvent(BaseModel):
    data: _SessionData


class _ChargeEvent(BaseModel):
    data: _ChargeData


_EVENTS: dict[str, type[_SessionEvent] | type[_ChargeEvent]] = {
    "checkout.session.completed": _SessionEvent,
    "checkout.session.async_payment_succeeded": _SessionEvent,
    "charge.refunded": _ChargeEvent,
}


def payment_event(body: bytes) -> TopUp | Reversal | None:
    """Read an event; None where it is of no type that matters, or of no top-up."""
    kind = _EVENTS.get(_Kind.model_validate_json(body).type)
    return kind.model_validate_json(body).data.object.event() if kind else None
