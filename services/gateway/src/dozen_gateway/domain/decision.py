"""The decision on a request: a pure function of what it asks and what is known."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

from dozen_gateway.domain import rejections
from dozen_gateway.domain.bounds import Asked, Bound, bound_tokens, bound_units
from dozen_gateway.domain.keys import (
    ApiKey,
    allows_endpoint,
    allows_model,
    is_secret_of,
    is_usable,
    mask_key,
    read_key,
)
from dozen_gateway.domain.promises import NOTHING, Promise, Shortage, promise
from dozen_gateway.domain.rejections import Rejection
from dozen_gateway.domain.route_table import Route, endpoints, find_route
from dozen_gateway.domain.state import Deployment, Model, Price, State

_NOTHING = Asked(0)


@dataclass(frozen=True, slots=True)
class Facts:
    """All that a decision is made from; never the body."""

    method: str
    path: str
    """Without the query."""
    model: str = ""
    """Empty where the body names none."""
    stream: bool = False
    asked: Asked = _NOTHING
    client_address: str = ""
    api_key: str = field(default="", repr=False)
    """The whole key, as the client sent it."""
    key_id: str = ""
    """In place of the key, from a service that acts for a request admitted before."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks for which route."""

    route: Route
    key: ApiKey


@dataclass(frozen=True, slots=True)
class Admitted:
    """The request may go to its service, once what it promises is taken."""

    service: str
    account: str
    key: str
    model: str | None = None
    price: str | None = None
    deployments: tuple[Deployment, ...] = ()
    """Where to go: the primary, then the fallbacks; none where the service is the same for everyone."""
    promise: Promise = NOTHING


@dataclass(frozen=True, slots=True)
class _Offer:
    model: Model
    price: Price


def decide(
    facts: Facts, state: State, now: float, monotonic: float, draw: Random
) -> Admitted | Rejection | Shortage:
    """Decide on a request; `now` is in Unix seconds, `draw` picks among equal deployments."""
    caller = identify(facts, state, now)
    if isinstance(caller, Rejection):
        return caller
    route, key = caller.route, caller.key
    if not route.price_class:
        return Admitted(route.service, key.account, key.id)
    offer = _offer(facts, route, key, state, now)
    if isinstance(offer, Rejection):
        return offer
    deployments = _deployments(offer.model, route.service, state, draw)
    if not deployments:
        return rejections.model_unavailable(offer.model.id)
    promised = promise(_bound(facts, route, offer), key, offer.model.id, state, monotonic)
    if not isinstance(promised, Promise):
        return promised
    return Admitted(
        route.service, key.account, key.id, offer.model.id, offer.price.id, tuple(deployments), promised
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


def _offer(facts: Facts, route: Route, key: ApiKey, state: State, now: float) -> _Offer | Rejection:
    if not facts.model:
        return rejections.no_model()
    model = state.models.get(facts.model)
    if model is None:
        return rejections.unknown_model(facts.model)
    if not allows_model(key, model.id):
        return rejections.model_not_allowed(model.id)
    if route.capability not in model.capabilities:
        operation = f"{route.method} {route.pattern}"
        return rejections.model_cannot(model.id, operation, endpoints(model.capabilities))
    price = state.price(model.id, now)
    return _Offer(model, price) if price else rejections.no_price(model.id)


def _bound(facts: Facts, route: Route, offer: _Offer) -> Bound:
    price = offer.price.nano_credits
    if route.unit is not None:
        return bound_units(facts.asked, route.unit, price)
    return bound_tokens(
        facts.asked,
        offer.model.context_length,
        price,
        template=route.capability == "chat",
        answers="output_tokens" in route.price_class,
    )


def _deployments(model: Model, service: str, state: State, draw: Random) -> Sequence[Deployment]:
    """Give those that may take requests, by priority; equals in a random order that weight shares out."""

    def order(deployment: Deployment) -> tuple[int, float]:
        # Sampling without replacement after Efraimidis and Spirakis: the largest u^(1/weight) comes first.
        share = draw.random() ** (1 / deployment.weight) if deployment.weight > 0 else -1.0
        return deployment.priority, -share

    usable = [
        deployment
        for deployment in model.deployments
        if deployment.service == service and state.usable.get(deployment.id, True)
    ]
    return sorted(usable, key=order) if len(usable) > 1 else usable
