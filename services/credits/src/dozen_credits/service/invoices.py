"""Invoices and statements of an account are read."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Protocol

from dozen_credits.domain.invoices import Invoice, Month, Movement, Statement
from dozen_credits.errors.invoices import InvoiceNotFound, StatementTooLong
from dozen_credits.service.usage import Page

_BEGINNING = datetime.min.replace(tzinfo=UTC)


class InvoiceStore(Protocol):
    """What is kept of each month."""

    async def invoices(
        self, account_id: str, start: datetime, end: datetime, limit: int, *, with_lines: bool
    ) -> list[Invoice]:
        """Give the newest invoices of months with activity that start in a period, the newest first."""
        ...

    async def opening(self, account_id: str, month: Month) -> int:
        """Give the balance at the start of a month."""
        ...

    async def charges(self, account_id: str, month: Month) -> list[Movement]:
        """Give the charges posted in a month, summed by day and by the month in which requests finished."""
        ...

    async def posted(
        self, account_id: str, month: Month, after: Movement | None, limit: int
    ) -> list[Movement]:
        """Give the first of all other movements in a month, in the order of time."""
        ...


class Invoices:
    """Reads invoices and statements."""

    def __init__(
        self, store: InvoiceStore, *, read_together: int = 1_000, most_movements: int = 10_000
    ) -> None:
        self._store = store
        self._read_together = read_together
        self._most_movements = most_movements

    async def page(self, account_id: str, *, after: str | None, limit: int) -> Page[Invoice]:
        """Give invoices without their lines, the newest first, that follow the month `after`."""
        before = Month.parse(after) if after is not None else None
        end = before.start if before else Month.of(datetime.now(UTC)).end
        rows = await self._store.invoices(account_id, _BEGINNING, end, limit + 1, with_lines=False)
        return Page(rows[:limit], len(rows) > limit)

    async def get(self, account_id: str, text: str) -> Invoice:
        """Give the invoice of a month such as `2026-11`."""
        return await self._find(account_id, text, with_lines=True)

    async def statement(self, account_id: str, text: str) -> Statement:
        """Give the whole statement of a month."""
        month, opening = await self.opening(account_id, text)
        movements: list[Movement] = []
        async for movement in self.movements(account_id, month):
            if len(movements) == self._most_movements:
                raise StatementTooLong()
            movements.append(movement)
        return Statement(month, opening, tuple(movements))

    async def opening(self, account_id: str, text: str) -> tuple[Month, int]:
        """Give a month that has a statement, and the balance at its start."""
        month = (await self._find(account_id, text, with_lines=False)).month
        return month, await self._store.opening(account_id, month)

    async def movements(self, account_id: str, month: Month) -> AsyncIterator[Movement]:
        """Give what moved a balance in a month; the charges of a day follow its other movements."""
        charges = await self._store.charges(account_id, month)
        charges.reverse()
        last: Movement | None = None
        while page := await self._store.posted(account_id, month, last, self._read_together):
            for last in page:
                while charges and charges[-1].time.date() < last.time.date():
                    yield charges.pop()
                yield last
        while charges:
            yield charges.pop()

    async def _find(self, account_id: str, text: str, *, with_lines: bool) -> Invoice:
        month = Month.parse(text)
        found = month and await self._store.invoices(
            account_id, month.start, month.end, 1, with_lines=with_lines
        )
        if not found:
            raise InvoiceNotFound(param="month")
        return found[0]
