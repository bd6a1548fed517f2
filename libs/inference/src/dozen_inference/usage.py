"""What a request used, as it is reported to credits."""

import logging
import time
from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

import msgspec

from dozen.credits.v1.credits_events_pb2 import UsageReported
from dozen.credits.v1.credits_pb2 import UsageRecord
from dozen_chassis.admission import Admission
from dozen_inference.hold import lease_id

log = logging.getLogger(__name__)


class Served(NamedTuple):
    """Who answered a request: ids of the deployment, its model and the price."""

    deployment: str
    model: str
    price: str
    attempts: int = 1

    def headers(self) -> dict[str, str]:
        """Give the headers that tell the client."""
        headers = {"x-dozen-model": self.model, "x-dozen-deployment": self.deployment}
        return headers if self.attempts == 1 else {**headers, "x-dozen-attempts": str(self.attempts)}


def first_choice(admission: Admission) -> Served:
    """Give who is to answer first."""
    facts = admission.facts
    deployment = facts.get("deployments", "").partition(",")[0]
    return Served(deployment, facts.get("model", ""), facts.get("price", ""))


_Tokens = Annotated[int, msgspec.Meta(ge=0, lt=2**31)]


class _PromptDetails(msgspec.Struct):
    cached_tokens: _Tokens | None = None


class Usage(msgspec.Struct):
    """The `usage` object of OpenAI's API."""

    prompt_tokens: _Tokens = 0
    completion_tokens: _Tokens | None = None
    prompt_tokens_details: _PromptDetails | None = None


def read_usage(value: Any) -> Usage | None:
    """Read a `usage` object; None where it is none, or says nothing, or what cannot be."""
    if not value:
        return None
    try:
        return msgspec.convert(value, Usage)
    except msgspec.ValidationError:
        log.warning("the inference server reports a usage of %.200r", value)
        return None


def token_quantities(usage: Usage) -> dict[str, int]:
    """Give tokens in the units of the price list."""
    details = usage.prompt_tokens_details
    cached = min(details.cached_tokens or 0, usage.prompt_tokens) if details else 0
    quantities = {"input_tokens": usage.prompt_tokens - cached, "output_tokens": usage.completion_tokens or 0}
    return quantities | {"cached_input_tokens": cached} if cached else quantities


def usage_record(
    admission: Admission,
    quantities: Mapping[str, int],
    *,
    estimated: bool = False,
    served: Served | None = None,
) -> UsageRecord:
    """Say what an admitted request used, in the units of the price list, and who `served` it."""
    served = served or first_choice(admission)
    record = UsageRecord(
        request_id=admission.request_id,
        account_id=admission.account,
        key_id=admission.key,
        model=served.model,
        deployment_id=served.deployment,
        operation=admission.operation,
        price_id=served.price,
        quantities=quantities,
        estimated=estimated,
        lease_id=lease_id(admission),
    )
    record.finished_at.seconds, record.finished_at.nanos = divmod(time.time_ns(), 10**9)
    return record


def usage_reported(records: list[UsageRecord]) -> UsageReported:
    """Give the event that carries the records of many requests."""
    return UsageReported(records=records)
