"""Routes of invoices and statements."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Response

from dozen_chassis.http import Admitted
from dozen_credits.routes.documents import Documents
from dozen_credits.schemas.invoices import (
    InvoiceBody,
    InvoiceList,
    StatementBody,
    invoice_body,
    invoice_list,
    statement_body,
)
from dozen_credits.service.accounts import Accounts
from dozen_credits.service.invoices import Invoices

_Format = Literal["json", "csv", "html"]


def router(accounts: Accounts, invoices: Invoices) -> APIRouter:
    """Serve `/v1/invoices`."""
    routes = APIRouter()
    documents = Documents()

    @routes.get("/v1/invoices")
    async def list_invoices(
        admission: Admitted,
        limit: Annotated[int, Query(ge=1, le=100)] = 12,
        after: Annotated[str | None, Query(pattern=r"^[12][0-9]{3}-(0[1-9]|1[0-2])$")] = None,
    ) -> InvoiceList:
        page = await invoices.page(admission.account, after=after, limit=limit)
        return invoice_list(admission.account, page.rows, page.has_more)

    @routes.get("/v1/invoices/{month}", response_model=InvoiceBody)
    async def read_invoice(
        admission: Admitted, month: str, format: _Format = "json"
    ) -> InvoiceBody | Response:
        invoice = await invoices.get(admission.account, month)
        match format:
            case "csv":
                return documents.invoice_table(invoice)
            case "html":
                return documents.invoice_page(await accounts.get(admission.account), invoice)
        return invoice_body(admission.account, invoice)

    @routes.get("/v1/invoices/{month}/statement", response_model=StatementBody)
    async def read_statement(
        admission: Admitted, month: str, format: _Format = "json"
    ) -> StatementBody | Response:
        if format == "csv":
            found, opening = await invoices.opening(admission.account, month)
            movements = invoices.movements(admission.account, found)
            return documents.statement_table(found, opening, movements)
        statement = await invoices.statement(admission.account, month)
        if format == "html":
            return documents.statement_page(await accounts.get(admission.account), statement)
        return statement_body(admission.account, statement)

    return routes
