"""What an admission promises: credits within a lease, and room within limits."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

from dozen_gateway.domain import rejections
from dozen_gateway.domain.bounds import LARGEST, Bound
from dozen_gateway.domain.keys import ApiKey
from dozen_gateway.domain.leases import Purse
from dozen_gateway.domain.limits import Cost, Exceeded, costs
from dozen_gateway.domain.rejections import Rejection
from dozen_gateway.domain.state import State

NO_FACTS: Mapping[str, str] = MappingProxyType({})


class Promise(NamedTuple):
    """What an admitted request may cost and use at most."""

    purse: Purse | None = None
    """Where it is paid from; None where it costs nothing."""
    nano_credits: int = 0
    costs: tuple[Cost, ...] = ()
    """What it counts against limits."""
    facts: Mapping[str, str] = NO_FACTS
    """What the service has to keep to."""


NOTHING = Promise()


@dataclass(frozen=True, slots=True)
class Shortage:
    """The request could be admitted if there were more at hand; decide again once that was asked for."""

    account: str
    purse_key: str
    """The key, where it has a budget of its own."""
    nano_credits: int = 0
    """What the request is to hold."""
    missing_nano_credits: int = 0
    """What of that is not free here."""
    permits: tuple[Cost, ...] = ()
    """What its limits have not yet granted here."""


def promise(
    bound: Bound, key: ApiKey, model: str, state: State, monotonic: float
) -> Promise | Rejection | Shortage:
    """Promise what a request may use at most, reject it, or say what is short; `monotonic` is in seconds."""
    purse, answer_tokens, missing = None, bound.answer_tokens, 0
    amount = bound.cost(answer_tokens)
    if amount:
        purse = state.purse(key.account, key.id if key.budget else "")
        free = purse.free(monotonic)
        payable = bound.payable_tokens(free + _available(purse, state))
        least = min(1, bound.answer_tokens)
        if payable is None and (monotonic < purse.refused_until or bound.cost(least) > LARGEST):
            return rejections.insufficient_quota() if key.budget is None else rejections.no_budget()
        # Where what is known does not pay for a single token, credits may know better.
        answer_tokens = least if payable is None else payable
        if bound.room and not bound.is_limited and answer_tokens < bound.answer_tokens:
            # Servers refuse a limit that does not fit into the context beside the prompt.
            answer_tokens = min(answer_tokens, bound.room)
        amount = bound.cost(answer_tokens)
        missing = max(0, amount - free)
    tokens = bound.tokens(answer_tokens)
    limits = state.account_limits.get(key.account)
    counted: tuple[Cost, ...] = ()
    permits: tuple[Cost, ...] = ()
    if limits or key.limits:
        counted = costs(key.id, key.limits, key.account, limits, model, tokens)
        verdict = state.permits.weigh(counted, monotonic)
        if isinstance(verdict, Exceeded):
            return rejections.rate_limited(verdict, state.permits.headers(counted, monotonic))
        permits = verdict
    if missing or permits:
        return Shortage(key.account, key.id if key.budget else "", amount, missing, permits)
    return Promise(purse, amount, counted, _kept_to(bound, answer_tokens))


def _available(purse: Purse, state: State) -> int:
    account = state.accounts.get(purse.account)
    available = account.available_nano_credits if account is not None else 0
    return max(0, available if purse.rest is None else min(available, purse.rest))


def _kept_to(bound: Bound, answer_tokens: int) -> dict[str, str]:
    if bound.answers:
        facts = {"max-tokens": str(answer_tokens)}
        return {**facts, "uncapped": "1"} if bound.is_open(answer_tokens) else facts
    return {"max-units": str(bound.units or bound.input_tokens)}
