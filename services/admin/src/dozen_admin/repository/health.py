"""The last answer of each service."""

from collections.abc import Mapping
from datetime import datetime

from dozen_admin.domain.watch import Answer, ServiceHealth
from dozen_chassis.postgres import Repository


class HealthRepository(Repository):
    """How each service answered when any replica last asked it."""

    async def note(self, answers: Mapping[str, Answer], now: datetime) -> None:
        """Keep answers; those that say what the last one said keep its `since`."""
        services = sorted(answers)  # in one order, so that replicas never wait for each other in a circle
        await self.db.execute(
            "insert into service_health as kept (service, status, detail, since, checked_at)"
            " select *, $4::timestamptz, $4 from unnest($1::text[], $2::text[], $3::text[])"
            " on conflict (service) do update set"
            "  status = excluded.status, detail = excluded.detail, checked_at = excluded.checked_at,"
            "  since = case when kept.status = excluded.status then kept.since else excluded.since end"
            " where kept.checked_at <= excluded.checked_at",
            services,
            [answers[service].status for service in services],
            [answers[service].detail for service in services],
            now,
        )

    async def latest(self) -> list[ServiceHealth]:
        """Give the last answers."""
        rows = await self.db.fetch("select service, status, detail, since, checked_at from service_health")
        return [ServiceHealth(**row) for row in rows]
