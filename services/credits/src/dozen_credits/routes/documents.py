"""Invoices and statements as tables for programs, and as pages for people to print."""

import base64
import csv
import hashlib
import io
from collections.abc import AsyncIterator, Iterable, Sequence
from pathlib import Path

from fastapi.responses import HTMLResponse, Response, StreamingResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from dozen_credits.domain.accounts import NANO, Account, credits_text
from dozen_credits.domain.invoices import Invoice, Month, Movement, Statement
from dozen_credits.schemas.invoices import is_open

_TEMPLATES = Path(__file__).parent.parent / "templates"
_ROWS_TOGETHER = 500
_PRIVATE = {"cache-control": "no-store", "x-content-type-options": "nosniff"}


class Documents:
    """Renders invoices and statements."""

    def __init__(self) -> None:
        # Inside the page, so that one file is all there is to keep; the policy allows this style only.
        style = (_TEMPLATES / "style.css").read_text()
        digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
        self._headers = {
            "content-security-policy": (
                f"default-src 'none'; style-src 'sha256-{digest}';"
                " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
            ),
            "referrer-policy": "no-referrer",
            **_PRIVATE,
        }
        self._environment = Environment(
            loader=FileSystemLoader(_TEMPLATES),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.globals["style"] = Markup(style)
        self._environment.filters["credits"] = credits

    def invoice_page(self, account: Account, invoice: Invoice) -> HTMLResponse:
        """Give an invoice as a page."""
        return self._page("invoice.html", account=account, month=invoice.month, invoice=invoice)

    def statement_page(self, account: Account, statement: Statement) -> HTMLResponse:
        """Give a statement as a page."""
        return self._page("statement.html", account=account, month=statement.month, statement=statement)

    def invoice_table(self, invoice: Invoice) -> Response:
        """Give an invoice as CSV: its lines, then its totals."""
        header = ("item", "model", "unit", "price_id", "quantity", "unit_price", "amount", "nano_credits")
        lines = (
            (
                "usage", _text(line.model), line.unit, _text(line.price_id), line.quantity,
                credits_text(line.unit_price), *_amount(line.amount),
            )
            for line in invoice.lines
        )  # fmt: skip
        totals = {
            "charged": invoice.charged,
            "written_off": invoice.written_off,
            "refunded": invoice.refunded,
            "paid": invoice.paid,
        }
        rows = [
            header,
            *lines,
            ("requests", "", "", "", invoice.requests, "", "", ""),
            *((item, "", "", "", "", "", *_amount(total)) for item, total in totals.items()),
        ]
        return Response(_csv(rows), media_type="text/csv", headers=_attached(f"invoice-{invoice.month}"))

    def statement_table(
        self, month: Month, opening: int, movements: AsyncIterator[Movement]
    ) -> StreamingResponse:
        """Give a statement as CSV, as its movements are read."""
        return StreamingResponse(
            _statement_rows(month, opening, movements),
            media_type="text/csv",
            headers=_attached(f"statement-{month}"),
        )

    def _page(self, template: str, *, month: Month, **values: object) -> HTMLResponse:
        rendered = self._environment.get_template(template).render(month=month, open=is_open(month), **values)
        return HTMLResponse(rendered, headers=self._headers)


def credits(nano_credits: int) -> str:
    """Write nano-credits as credits for people: exactly, with two decimals at least."""
    whole, fraction = divmod(abs(nano_credits), NANO)
    sign = "−" if nano_credits < 0 else ""
    return f"{sign}{whole:,}.{f'{fraction:09}'.rstrip('0').ljust(2, '0')}"


async def _statement_rows(
    month: Month, opening: int, movements: AsyncIterator[Movement]
) -> AsyncIterator[str]:
    closing = opening
    rows: list[Sequence[object]] = [
        ("date", "item", "amount", "nano_credits", "reason", "reference"),
        (f"{month.start:%Y-%m-%d}", "opening_balance", *_amount(opening), "", ""),
    ]
    last = f"{month.start:%Y-%m-%d}"
    async for movement in movements:
        last = f"{movement.time:%Y-%m-%d}"
        closing += movement.nano_credits
        amount = _amount(movement.nano_credits)
        rows.append((last, movement.kind, *amount, _text(movement.reason), _text(movement.reference)))
        if len(rows) >= _ROWS_TOGETHER:
            yield _csv(rows)
            rows.clear()
    rows.append((last, "closing_balance", *_amount(closing), "", ""))
    yield _csv(rows)


def _csv(rows: Iterable[Sequence[object]]) -> str:
    written = io.StringIO()
    csv.writer(written).writerows(rows)
    return written.getvalue()


def _amount(nano_credits: int) -> tuple[str, int]:
    return credits_text(nano_credits), nano_credits


def _text(text: str) -> str:
    """Keep spreadsheets from taking a text for a formula."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def _attached(name: str) -> dict[str, str]:
    return {"content-disposition": f'attachment; filename="{name}.csv"', **_PRIVATE}
