"""What a request used, as it is reported to credits."""

from collections.abc import Mapping

import msgspec

from dozen.credits.v1.credits_events_pb2 import UsageReported
from dozen.credits.v1.credits_pb2 import UsageRecord
from dozen_chassis.admission import Admission
from dozen_inference.hold import lease_id


class _PromptDetails(msgspec.Struct):
    cached_tokens: int | None = None


class Usage(msgspec.Struct):
    """The `usage` object of OpenAI's API."""

    prompt_tokens: int = 0
    completion_tokens: int | None = None
    prompt_tokens_details: _PromptDetails | None = None


def token_quantities(usage: Usage) -> dict[str, int]:
    """Give tokens in the units of the price list."""
    details = usage.prompt_tokens_details
    cached = min(details.cached_tokens or 0, usage.prompt_tokens) if details else 0
    quantities = {"input_tokens": usage.prompt_tokens - cached, "output_tokens": usage.completion_tokens or 0}
    return quantities | {"cached_input_tokens": cached} if cached else quantities


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
        lease_id=lease_id(admission),
    )
    record.finished_at.GetCurrentTime()
    return record


def usage_reported(records: list[UsageRecord]) -> UsageReported:
    """Give the event that carries the records of many requests."""
    return UsageReported(records=records)
