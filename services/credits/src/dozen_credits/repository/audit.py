"""What was reported, rated and posted in a period: counted, with what does not match."""

from collections.abc import Mapping

from dozen_credits.domain.reconciliation import Period
from dozen_credits.domain.usage import UNITS, Step
from dozen_credits.repository.metering import MeteringRepository

_MOST_KEPT = 1000
"""Findings of one kind that are kept of one query; all are counted."""
_AMOUNTS = ("requests", "nano_credits", *UNITS)
_SUMS = ", ".join(f"coalesce(sum({name}), 0) as {name}" for name in _AMOUNTS)
_USED = f"""
    select account_id, key_id, model, operation, {_SUMS}
    from (
        select
            account_id, key_id, model, operation, 1 as requests, nano_credits,
            {", ".join(f"(quantities ->> '{unit}')::bigint as {unit}" for unit in UNITS)}
        from usage where finished_at >= $3 and finished_at < $4
    ) as used
    group by 1, 2, 3, 4
"""
_SUMMED = f"""
    select account_id, key_id, model, operation, {_SUMS} from usage_sums
    where step = '{{step}}' and start >= $3 and start < $4
    group by 1, 2, 3, 4
"""
_PARTS = {
    Step.HOUR: _USED,
    Step.DAY: _SUMMED.format(step=Step.HOUR),
    Step.MONTH: _SUMMED.format(step=Step.DAY),
}
"""What the sums of a step are made of."""


class AuditRepository(MeteringRepository):
    """Compares, in a transaction, what is kept in several places."""

    async def audit_recounts(self, reconciliation_id: str, period: Period) -> Mapping[str, int]:
        """Count what was sent again; what was missing counts although it finished shortly before or after."""
        await self.db.execute(
            "delete from reconciliation_findings where reconciliation_id = $1", reconciliation_id
        )
        await self.db.execute(
            "update recounted_requests as missing set outcome = 'set_aside'"
            " where reconciliation_id = $1 and outcome = 'missing'"
            " and exists (select from unrated_usage where request_id = missing.request_id)",
            reconciliation_id,
        )
        row = await self.db.fetchrow(
            """
            with found as materialized (
                select * from recounted_requests
                where reconciliation_id = $1 and outcome <> 'matched'
                    and (outcome = 'missing' or (finished_at >= $2 and finished_at < $3))
            ), kept as (
                insert into reconciliation_findings
                select reconciliation_id, outcome, account_id, request_id, differences from (
                    select *, row_number() over (partition by outcome) as number from found
                ) as numbered
                where number <= $4
            ), reported as (
                select count(*) as requests, coalesce(sum(nano_credits), 0)::bigint as nano_credits
                from recounted_requests
                where reconciliation_id = $1 and finished_at >= $2 and finished_at < $3
            )
            select
                requests as reported,
                nano_credits as reported_nano_credits,
                (select count(*) from found where outcome = 'missing') as missing,
                (select count(*) from found where outcome = 'mismatched') as mismatched,
                (select count(*) from found where outcome = 'set_aside') as set_aside
            from reported
            """,
            reconciliation_id,
            period.start,
            period.end,
            _MOST_KEPT,
        )
        return dict(row or {})

    async def audit_charges(
        self, reconciliation_id: str, period: Period, *, all_recounted: bool
    ) -> Mapping[str, int]:
        """Compare what was rated with what was posted, and with what was sent again where that is all."""
        # A request and its transfers have the time of their transaction, by which these are found.
        row = await self.db.fetchrow(
            """
            with rated as materialized (
                select
                    account_id, request_id, rated_at, nano_credits - written_off as charge,
                    written_off as write_off
                from usage where finished_at >= $2 and finished_at < $3
            ), posted as (
                select batches.rated_at, entries.* from (select distinct rated_at from rated) as batches
                cross join lateral (
                    select
                        account_id,
                        reference as request_id,
                        sum(nano_credits) filter (where kind = 'charge') as charge,
                        sum(nano_credits) filter (where kind = 'write_off') as write_off
                    from transfers where created_at = rated_at and kind in ('charge', 'write_off')
                    group by 1, 2
                ) as entries
            ), compared as materialized (
                select
                    rated.*,
                    coalesce(posted.charge, 0) as posted_charge,
                    coalesce(posted.write_off, 0) as posted_write_off,
                    rated.charge = coalesce(posted.charge, 0)
                        and rated.write_off = coalesce(posted.write_off, 0) as agrees,
                    $4 and recounted.request_id is null as is_unreported
                from rated
                left join posted using (account_id, request_id, rated_at)
                left join recounted_requests as recounted
                    on reconciliation_id = $1 and recounted.request_id = rated.request_id
            ), kept as (
                insert into reconciliation_findings (
                    select $1, 'misposted', account_id, request_id, json_build_object(
                        'charge', json_build_object('rated', charge, 'posted', posted_charge),
                        'write_off', json_build_object('rated', write_off, 'posted', posted_write_off)
                    )
                    from compared where not agrees limit $5
                ) union all (
                    select $1, 'unreported', account_id, request_id,
                        json_build_object('nano_credits', charge + write_off)
                    from compared where is_unreported limit $5
                )
            )
            select
                count(*) as rated,
                coalesce(sum(charge + write_off), 0)::bigint as rated_nano_credits,
                count(*) filter (where agrees) as posted,
                coalesce(sum(posted_charge + posted_write_off), 0)::bigint as posted_nano_credits,
                count(*) filter (where not agrees) as misposted,
                count(*) filter (where is_unreported) as unreported
            from compared
            """,
            reconciliation_id,
            period.start,
            period.end,
            all_recounted,
            _MOST_KEPT,
        )
        return dict(row or {})

    async def audit_transfers(self, reconciliation_id: str, period: Period) -> Mapping[str, int]:
        """Find what was posted in a period for requests that were not rated then."""
        row = await self.db.fetchrow(
            """
            with unfounded as materialized (
                select transfers.account_id, reference, sum(transfers.nano_credits)::bigint as nano_credits
                from transfers
                left join lateral (
                    select true as is_rated from reported_requests as reported
                    join usage on usage.account_id = transfers.account_id
                        and usage.finished_at = reported.finished_at
                        and usage.request_id = reported.request_id and rated_at = transfers.created_at
                    where reported.request_id = reference
                    limit 1
                ) as founded on true
                where created_at >= $2 and created_at < $3 and kind in ('charge', 'write_off')
                    and is_rated is null
                group by 1, 2
            ), kept as (
                insert into reconciliation_findings
                select $1, 'unfounded', account_id, reference, json_build_object('nano_credits', nano_credits)
                from unfounded limit $4
                on conflict do nothing
            )
            select count(*) as unfounded from unfounded
            """,
            reconciliation_id,
            period.start,
            period.end,
            _MOST_KEPT,
        )
        return dict(row or {})

    async def audit_sums(self, reconciliation_id: str, step: Step, span: Period) -> Mapping[str, int]:
        """Compare the sums of one hour, day or month with what they are made of."""
        row = await self.db.fetchrow(
            f"""
            with parts as ({_PARTS[step]}), sums as (
                select account_id, key_id, model, operation, {", ".join(_AMOUNTS)} from usage_sums
                where step = $2 and start = $3
            ), missummed as materialized (
                select
                    account_id,
                    concat_ws(' ', $6::text, key_id, model, operation) as reference,
                    json_build_object('rated', to_json(parts), 'summed', to_json(sums)) as detail
                from parts full join sums using (account_id, key_id, model, operation)
                where to_jsonb(parts) is distinct from to_jsonb(sums)
            ), kept as (
                insert into reconciliation_findings
                select $1, 'missummed', account_id, reference, detail from missummed limit $5
                on conflict do nothing
            )
            select count(*) as missummed from missummed
            """,
            reconciliation_id,
            step,
            span.start,
            span.end,
            _MOST_KEPT,
            f"{step} {span.start:%Y-%m-%dT%H}",
        )
        return dict(row or {})
