"""What a request used, as it is reported to credits."""

from collections.abc import Mapping

from dozen.credits.v1.credits_events_pb2 import UsageReported
from dozen.credits.v1.credits_pb2 import UsageRecord
from dozen_chassis.admission import Admission


def usage_record(
    admission: Admission, quantities: Mapping[str, int], *, estimated: bool = False
) -> UsageRecord:
    """Say what an admitted request used, in the units of the price list."""
    record = UsageRecord(
        request_id=admission.request_id,
        account_id=admission.account,
        key_id=admission.key,
        model=admission.facts.get("model", ""),
        deployment_id=admission.facts.get("deployments", "").partition(",")[0],
        operation=admission.operation,
        price_id=admission.facts.get("price", ""),
        quantities=quantities,
        estimated=estimated,
    )
    record.finished_at.GetCurrentTime()
    return record


def usage_reported(records: list[UsageRecord]) -> UsageReported:
    """Give the event that carries the records of many requests."""
    return UsageReported(records=records)
