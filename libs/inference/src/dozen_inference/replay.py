"""What a service reported is sent again where credits reconciles."""

import logging
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, timedelta
from typing import Any

from google.protobuf.message import Message

from dozen.credits.v1.credits_events_pb2 import UsageRecounted, UsageRecountRequested, UsageReported
from dozen.credits.v1.credits_pb2 import UsageRecord
from dozen_chassis.events import Delivery
from dozen_chassis.postgres import Database, Repository

log = logging.getLogger(__name__)

_LATEST = timedelta(hours=1)
"""Usage is reported when a request ends; by so much the clocks of a service and its database may differ."""
_SENT_TOGETHER = 500


class UsageReplay:
    """Sends usage reports again that the database of the service keeps."""

    def __init__(self, service: str, database: Database) -> None:
        self._service = service
        self._repository = Repository(database)

    async def answer(self, request: UsageRecountRequested, event_id: str) -> None:
        """Report again, once, all records of requests that finished in a period, and say how many they were.

        All of it is one transaction, so that the answer is complete or not given.
        """
        start, end = request.start.ToDatetime(UTC), request.end.ToDatetime(UTC)
        sent = 0
        async with self._repository.transaction() as tx:
            if not await tx.first_delivery(event_id):
                return
            together: list[UsageRecord] = []
            async for report in tx.kept(UsageReported, start - _LATEST, end + _LATEST):
                finished = (one for one in report.records if start <= one.finished_at.ToDatetime(UTC) < end)
                together.extend(finished)
                while len(together) >= _SENT_TOGETHER:
                    sent += await self._send(tx, request.reconciliation_id, together[:_SENT_TOGETHER])
                    del together[:_SENT_TOGETHER]
            sent += await self._send(tx, request.reconciliation_id, together)
            await tx.emit(
                UsageRecounted(
                    reconciliation_id=request.reconciliation_id, service=self._service, records=sent
                )
            )
        log.info("usage is reported again", extra={"reconciliation": request.reconciliation_id, "sent": sent})

    async def _send(self, tx: Repository, reconciliation_id: str, records: list[UsageRecord]) -> int:
        if records:
            report = UsageReported(
                records=records, reconciliation_id=reconciliation_id, service=self._service
            )
            await tx.emit(report, keep=False)
        return len(records)


async def on_usage_recount_requested(
    event: UsageRecountRequested, delivery: Delivery, replay: UsageReplay
) -> None:
    """Send again what was reported of a period."""
    await replay.answer(event, delivery.id)


HANDLERS: Mapping[type[Message], Callable[[Any, Delivery, Any], Awaitable[None]]] = {
    UsageRecountRequested: on_usage_recount_requested,
}
