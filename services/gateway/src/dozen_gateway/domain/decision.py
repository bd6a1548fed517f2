"""The decision on a request: a pure function of what it asks and what is known."""

from collections.abc import Mapping, Sequence
from random import Random
from typing import NamedTuple

import msgspec

from dozen_gateway.domain import rejections
from dozen_gateway.domain.bounds import Asked
from dozen_gateway.domain.keys import ApiKey, allows_endpoint, is_secret_of, is_usable, mask_key, read_key
from dozen_gateway.domain.offers import Offer, Request, bound_dearest, find_offers
from dozen_gateway.domain.promises import NO_FACTS, NOTHING, Promise, Shortage, promise
from dozen_gateway.domain.rejections import Rejection
from dozen_gateway.domain.route_table import Route, find_route, is_model_id
from dozen_gateway.domain.routing import MOST_TRIED
from dozen_gateway.domain.state import Deployment, State

NO_MODEL = "-"
"""The name of no model, for a key that may use none."""

_NOTHING = Asked(0)


class Facts(msgspec.Struct, frozen=True, gc=False):
    """All that a decision is made from; never the body."""

    method: str
    path: str
    """Without the query."""
    model: str = ""
    """Empty where the body names none."""
    stream: bool = False
    asked: Asked = _NOTHING
    client_address: str = ""
    api_key: str = ""
    """The whole key, as the client sent it."""
    key_id: str = ""
    """In place of the key, from a service that acts for a request admitted before."""
    prefix: str = ""
    """A hash of the first part of the prompt; empty where that is too short for anybody to have it cached."""

    def __repr__(self) -> str:
        return f"Facts({self.method} {self.path})"  # without the key


class Caller(NamedTuple):
    """Who asks for which route."""

    route: Route
    key: ApiKey


class Admitted(NamedTuple):
    """The request may go to its service, once what it promises is taken."""

    service: str
    account: str
    key: str
    model: str | None = None
    price: str | None = None
    deployments: Sequence[Deployment] = ()
    """Where to go: to the first; none where the service is the same for everyone."""
    promise: Promise = NOTHING
    facts: Mapping[str, str] = NO_FACTS
    """What the service is told of the decision."""


def decide(
    facts: Facts, state: State, now: float, monotonic: float, draw: Random, known: Caller | None = None
) -> Admitted | Rejection | Shortage:
    """Decide on a request; `now` is in Unix seconds, `draw` picks among equal deployments.

    A caller that is `known` was identified a moment ago, and is not again while the key is still the same.
    """
    if known is not None and state.keys.get(known.key.id) is known.key and is_usable(known.key, now):
        caller: Caller | Rejection = known
    else:
        caller = identify(facts, state, now)
    if isinstance(caller, Rejection):
        return caller
    route, key = caller.route, caller.key
    if not route.price_class:
        return Admitted(route.service, key.account, key.id, facts=_free_facts(route, key))
    request = Request(route, key, facts.model, facts.asked, facts.prefix, now, monotonic)
    offers = find_offers(request, state, draw)
    if isinstance(offers, Rejection):
        return offers
    model, price, deployments = offers[0]
    promised = promise(bound_dearest(request, offers), key, model.id, state, monotonic)
    if not isinstance(promised, Promise):
        return promised
    return Admitted(
        route.service,
        key.account,
        key.id,
        model.id,
        price.id,
        deployments or offers[1].deployments,
        promised,
        _facts(offers, promised),
    )


def identify(facts: Facts, state: State, now: float) -> Caller | Rejection:
    """Find who asks for which route: the first half of a decision, which needs nothing of the body."""
    route = find_route(facts.method, facts.path)
    if isinstance(route, Rejection):
        return route
    if not state.loaded:
        return rejections.not_ready()
    if now > state.trusted_until:
        return rejections.state_too_old()
    key = _by_id(facts.key_id, state, now) if facts.key_id else _by_secret(facts.api_key, state, now)
    if isinstance(key, Rejection):
        return key
    if not allows_endpoint(key, facts.path):
        return rejections.endpoint_not_allowed(facts.method, route.pattern)
    return Caller(route, key)


def _by_secret(api_key: str, state: State, now: float) -> ApiKey | Rejection:
    if not api_key:
        return rejections.no_api_key()
    parts = read_key(api_key)
    key = state.keys.get(parts.id) if parts else None
    if parts is None or key is None or not is_secret_of(key, parts, now) or not is_usable(key, now):
        return rejections.wrong_api_key(mask_key(api_key))
    return key


def _by_id(key_id: str, state: State, now: float) -> ApiKey | Rejection:
    key = state.keys.get(key_id)
    return key if key is not None and is_usable(key, now) else rejections.wrong_api_key(mask_key(key_id))


def _facts(offers: Sequence[Offer], promised: Promise) -> dict[str, str]:
    """Say what the service has to know: headers, so that nothing in them needs quoting."""
    model, price, deployments = offers[0]
    facts = {"model": model.id, "price": price.id}
    if deployments:
        facts["deployments"] = ",".join([deployment.id for deployment in deployments])
    if len(offers) > 1:
        entries = [
            f"{deployment.id} {fallback.id} {price.id}"
            for fallback, price, deployments in offers[1:]
            for deployment in deployments
        ]
        facts["fallbacks"] = ",".join(entries[:MOST_TRIED])
    if model.cache_seconds:
        facts["cache"] = str(model.cache_seconds)
    if model.content_filter or (len(offers) > 1 and any(offer.model.content_filter for offer in offers)):
        facts["filter"] = "on"
    facts.update(promised.facts)
    if promised.purse is not None and promised.purse.lease is not None:
        facts["reservation"] = promised.purse.lease.id
    return facts


def _free_facts(route: Route, key: ApiKey) -> Mapping[str, str]:
    """Name the models of a key where it may see no others; what can be no model's name is left out."""
    if route.service != "models" or not key.models:
        return NO_FACTS
    return {"models": ",".join(sorted(filter(is_model_id, key.models))) or NO_MODEL}
