"""The command `python -m dozen_credits.reconcile`: has the service that runs here reconcile."""

import argparse
import asyncio
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from dozen.credits.v1.reconciliation_pb2 import (
    RECONCILIATION_STATE_INCOMPLETE,
    RECONCILIATION_STATE_RUNNING,
    Reconciliation,
    ReconciliationFinding,
)
from dozen.credits.v1.reconciliation_service_pb2 import GetReconciliationRequest, ReconcileRequest
from dozen.credits.v1.reconciliation_service_pb2_grpc import ReconciliationServiceStub
from dozen_chassis.errors import ServiceError
from dozen_chassis.grpc import open_channel, remote_errors
from dozen_chassis.signing import caller_token
from dozen_credits.domain.accounts import credits_text
from dozen_credits.domain.reconciliation import SETTLED
from dozen_credits.settings import Settings

if TYPE_CHECKING:
    from dozen.credits.v1.reconciliation_service_pb2_grpc import ReconciliationServiceAsyncStub

_DESCRIPTION = (
    "Compare what services reported with what was rated and posted. Without a period, the last day."
)
_LOOK_AGAIN_SECONDS = 1.0
_CALL_SECONDS = 10.0


async def reconcile(arguments: Sequence[str], settings: Settings, write: Callable[[str], object]) -> int:
    """Run the command; give 0 where what was reported, rated and posted agrees, else 1."""
    parser = argparse.ArgumentParser(prog="python -m dozen_credits.reconcile", description=_DESCRIPTION)
    parser.add_argument("--start", type=_time, help="such as 2026-10-05 or 2026-10-05T12:30, in UTC")
    parser.add_argument("--end", type=_time, help="the same; not part of the period")
    given = parser.parse_args(arguments)
    end = given.end or datetime.now(UTC) - 2 * SETTLED
    request = ReconcileRequest()
    request.start.FromDatetime(given.start or end - timedelta(days=1))
    request.end.FromDatetime(end)
    host = "127.0.0.1" if settings.grpc_host == "0.0.0.0" else settings.grpc_host
    token = caller_token(bytes.fromhex(settings.grpc_key.get_secret_value()), "operator")
    try:
        async with open_channel(f"{host}:{settings.grpc_port}", token) as channel:
            stub: ReconciliationServiceAsyncStub = ReconciliationServiceStub(channel)
            with remote_errors():
                started = await stub.Reconcile(request, timeout=_CALL_SECONDS)
                reconciliation, findings = await _follow(stub, started.reconciliation.id, write)
    except ServiceError as error:
        write(f"{error.message}\n")
        return 1
    write("\n".join([*_report(reconciliation, findings), ""]))
    return 0 if reconciliation.agrees else 1


async def _follow(
    stub: "ReconciliationServiceAsyncStub", reconciliation_id: str, write: Callable[[str], object]
) -> tuple[Reconciliation, Sequence[ReconciliationFinding]]:
    told = ""
    while True:
        request = GetReconciliationRequest(reconciliation_id=reconciliation_id)
        answer = await stub.GetReconciliation(request, timeout=_CALL_SECONDS)
        if (now := answer.reconciliation).state != RECONCILIATION_STATE_RUNNING:
            return now, answer.findings
        progress = f"{now.received_records} records; waiting for {', '.join(now.waiting_for) or 'the result'}"
        if progress != told:
            write(f"{progress}\n")
            told = progress
        await asyncio.sleep(_LOOK_AGAIN_SECONDS)


def _report(one: Reconciliation, findings: Iterable[ReconciliationFinding]) -> list[str]:
    start, end = (f"{time.ToDatetime(UTC):%Y-%m-%d %H:%M:%S}" for time in (one.start, one.end))
    lines = [f"{one.id}: {start} to {end} UTC", f"{'':10} {'requests':>12} {'credits':>24}"]
    for name, side in (("reported", one.reported), ("rated", one.rated), ("posted", one.posted)):
        lines.append(f"{name:10} {side.requests:12} {credits_text(side.nano_credits):>24}")
    lines += [f"{kind:10} {count:12}" for kind, count in sorted(one.findings_by_kind.items())]
    lines += [f"  {found.kind} {found.account_id} {found.reference} {found.detail}" for found in findings]
    if one.state == RECONCILIATION_STATE_INCOMPLETE:
        lines.append(f"Incomplete: {', '.join(one.waiting_for)} did not answer in time.")
    lines.append("They agree." if one.agrees else "They do not agree.")
    return lines


def _time(text: str) -> datetime:
    time = datetime.fromisoformat(text)
    return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)


if __name__ == "__main__":
    sys.exit(asyncio.run(reconcile(sys.argv[1:], Settings(), sys.stdout.write)))
