"""The log of requests, in the database of the service that answers them."""

from collections.abc import Sequence
from datetime import timedelta

from dozen_chassis.postgres import Repository
from dozen_inference.outcome import Outcome
from dozen_inference.usage import first_choice


class RequestLogRepository(Repository):
    """The table `requests`."""

    async def record(self, outcomes: Sequence[Outcome]) -> None:
        """Log what came of requests."""
        answered = [outcome.served or first_choice(outcome.admission) for outcome in outcomes]
        await self.db.execute(
            "insert into requests (request_id, account_id, key_id, model, deployment_id, stream, status,"
            "  ending, input_tokens, output_tokens, milliseconds, first_byte_milliseconds)"
            " select * from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bool[],"
            "  $7::int2[], $8::text[], $9::int8[], $10::int8[], $11::int8[], $12::int8[])",
            [outcome.admission.request_id for outcome in outcomes],
            [outcome.admission.account for outcome in outcomes],
            [outcome.admission.key for outcome in outcomes],
            [served.model for served in answered],
            [served.deployment for served in answered],
            [outcome.stream for outcome in outcomes],
            [outcome.status for outcome in outcomes],
            [outcome.ending for outcome in outcomes],
            [outcome.input_tokens for outcome in outcomes],
            [outcome.output_tokens for outcome in outcomes],
            [_milliseconds(outcome.seconds) for outcome in outcomes],
            [_milliseconds(outcome.first_byte_seconds) for outcome in outcomes],
        )

    async def forget(self, older_than: timedelta, limit: int) -> int:
        """Drop log entries of that age; return how many."""
        status: str = await self.db.execute(
            "delete from requests where id in ("
            "  select id from requests where created_at < now() - $1::interval limit $2)",
            older_than,
            limit,
        )
        return int(status.split()[-1])


def _milliseconds(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1000)
