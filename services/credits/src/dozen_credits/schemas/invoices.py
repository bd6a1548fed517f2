"""Bodies of invoices and statements."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Literal

from pydantic import BaseModel

from dozen_credits.domain.accounts import credits_text
from dozen_credits.domain.invoices import Invoice, Line, Month, Movement, Statement
from dozen_credits.schemas.lists import ends


class Amount(BaseModel):
    """An amount, in credits exactly and in nano-credits."""

    credits: str
    nano_credits: int

    @classmethod
    def of(cls, nano_credits: int) -> "Amount":
        """Write an amount."""
        return cls(credits=credits_text(nano_credits), nano_credits=nano_credits)


class MonthBody(BaseModel):
    """What invoices and statements have in common."""

    id: str
    account_id: str
    status: Literal["open", "closed"]
    period_start: int
    period_end: int


class InvoiceSummary(MonthBody):
    """One item of `GET /v1/invoices`."""

    object: Literal["invoice"] = "invoice"
    requests: int
    charged: Amount
    written_off: Amount
    """What of the charges neither lease nor balance could pay."""
    refunded: Amount
    paid: Amount
    """What is left of the charges after both."""


class InvoiceLine(BaseModel):
    """What was used of one model in one unit at one price."""

    model: str
    unit: str
    price_id: str
    quantity: int
    unit_price: Amount
    amount: Amount


class InvoiceBody(InvoiceSummary):
    """Answer of `GET /v1/invoices/{month}`."""

    lines: list[InvoiceLine]


class InvoiceList(BaseModel):
    """Answer of `GET /v1/invoices`."""

    object: Literal["list"] = "list"
    data: list[InvoiceSummary]
    first_id: str | None
    last_id: str | None
    has_more: bool


class MovementBody(BaseModel):
    """One movement of a statement."""

    date: str
    kind: str
    amount: Amount
    reason: str
    reference: str


class StatementBody(MonthBody):
    """Answer of `GET /v1/invoices/{month}/statement`."""

    object: Literal["statement"] = "statement"
    opening_balance: Amount
    movements: list[MovementBody]
    totals: dict[str, Amount]
    """The sum of each kind of movement."""
    closing_balance: Amount


def is_open(month: Month) -> bool:
    """Tell whether a month has not ended."""
    return month.end > datetime.now(UTC)


def invoice_summary(account_id: str, invoice: Invoice) -> InvoiceSummary:
    """Show an invoice without its lines."""
    return InvoiceSummary(
        **_month(account_id, invoice.month).model_dump(),
        requests=invoice.requests,
        charged=Amount.of(invoice.charged),
        written_off=Amount.of(invoice.written_off),
        refunded=Amount.of(invoice.refunded),
        paid=Amount.of(invoice.paid),
    )


def invoice_body(account_id: str, invoice: Invoice) -> InvoiceBody:
    """Show an invoice."""
    summary = invoice_summary(account_id, invoice)
    return InvoiceBody(**dict(summary), lines=[_line(line) for line in invoice.lines])


def invoice_list(account_id: str, invoices: Sequence[Invoice], has_more: bool) -> InvoiceList:
    """Show a page of invoices."""
    data = [invoice_summary(account_id, invoice) for invoice in invoices]
    return InvoiceList(data=data, has_more=has_more, **ends([item.id for item in data]))


def statement_body(account_id: str, statement: Statement) -> StatementBody:
    """Show a statement."""
    return StatementBody(
        **_month(account_id, statement.month).model_dump(),
        opening_balance=Amount.of(statement.opening),
        movements=[_movement(movement) for movement in statement.movements],
        totals={kind: Amount.of(total) for kind, total in statement.totals.items()},
        closing_balance=Amount.of(statement.closing),
    )


def _month(account_id: str, month: Month) -> MonthBody:
    return MonthBody(
        id=str(month),
        account_id=account_id,
        status="open" if is_open(month) else "closed",
        period_start=int(month.start.timestamp()),
        period_end=int(month.end.timestamp()),
    )


def _line(line: Line) -> InvoiceLine:
    return InvoiceLine(
        model=line.model,
        unit=line.unit,
        price_id=line.price_id,
        quantity=line.quantity,
        unit_price=Amount.of(line.unit_price),
        amount=Amount.of(line.amount),
    )


def _movement(movement: Movement) -> MovementBody:
    return MovementBody(
        date=f"{movement.time:%Y-%m-%d}",
        kind=movement.kind,
        amount=Amount.of(movement.nano_credits),
        reason=movement.reason,
        reference=movement.reference,
    )
