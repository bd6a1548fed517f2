"""What may answer a request: the model that was asked for, and the models that stand in for it."""

from collections.abc import Iterator, Sequence
from random import Random
from typing import NamedTuple

from dozen_gateway.domain import rejections
from dozen_gateway.domain.bounds import Asked, Bound, bound_tokens, bound_units, fits
from dozen_gateway.domain.keys import ApiKey, allows_model
from dozen_gateway.domain.rejections import Rejection
from dozen_gateway.domain.route_table import Route, endpoints
from dozen_gateway.domain.routing import find_deployments
from dozen_gateway.domain.state import Deployment, Model, Price, State

MOST_FALLBACKS = 4
"""Models that stand in for one, at most."""


class Request(NamedTuple):
    """What somebody asks, of one moment."""

    route: Route
    key: ApiKey
    model: str
    asked: Asked
    prefix: str
    now: float
    """Unix seconds."""
    monotonic: float


class Offer(NamedTuple):
    """A model, what it costs, and where it answers; nowhere, where it stands in the front of others only."""

    model: Model
    price: Price
    deployments: list[Deployment]


def find_offers(request: Request, state: State, draw: Random) -> list[Offer] | Rejection:
    """Give what was asked for, and then what stands in for it."""
    if not request.model:
        return rejections.no_model()
    model, route = state.models.get(request.model), request.route
    if model is None:
        return rejections.unknown_model(request.model)
    if not allows_model(request.key, model.id):
        return rejections.model_not_allowed(model.id)
    if route.capability not in model.capabilities:
        operation = f"{route.method} {route.pattern}"
        return rejections.model_cannot(model.id, operation, endpoints(model.capabilities))
    price = state.price(model.id, request.now)
    if price is None:
        return rejections.no_price(model.id)
    deployments = find_deployments(model, route.service, request.prefix, state, request.monotonic, draw)
    offers = [Offer(model, price, deployments)]
    if model.fallbacks:
        offers += _fallbacks(model, request, state, draw)
    if not deployments and len(offers) == 1:
        return rejections.model_unavailable(model.id, draw)
    return offers


def bound_dearest(request: Request, offers: Sequence[Offer]) -> Bound:
    """Bound a request that any of several models may answer."""
    bound = _bound(request, offers[0])
    if len(offers) > 1:
        for offer in offers[1:]:
            bound = bound.or_dearer(_bound(request, offer))
    return bound


def _bound(request: Request, offer: Offer) -> Bound:
    route, price = request.route, offer.price.nano_credits
    if route.unit is not None:
        return bound_units(request.asked, route.unit, price)
    return bound_tokens(
        request.asked,
        offer.model.context_length,
        price,
        template=route.capability == "chat",
        answers="output_tokens" in route.price_class,
    )


def _fallbacks(model: Model, request: Request, state: State, draw: Random) -> Iterator[Offer]:
    """Give those that the key may use, that do the same, have a price, and can take the request now."""
    route, found = request.route, 0
    for one in _in_turn(model, state):
        if not allows_model(request.key, one.id) or route.capability not in one.capabilities:
            continue
        if not fits(
            request.asked, one.context_length, model.context_length, template=route.capability == "chat"
        ):
            continue
        price = state.price(one.id, request.now)
        if price is None:
            continue
        deployments = find_deployments(one, route.service, request.prefix, state, request.monotonic, draw)
        if not deployments:
            continue
        yield Offer(one, price, deployments)
        found += 1
        if found == MOST_FALLBACKS:
            return


def _in_turn(model: Model, state: State) -> Iterator[Model]:
    """Give the fallbacks of a model, then those of these, and so on; each once."""
    seen, waiting = {model.id}, [model]
    for one in waiting:
        for model_id in one.fallbacks:
            fallback = state.models.get(model_id)
            if fallback is not None and model_id not in seen:
                seen.add(model_id)
                waiting.append(fallback)
                yield fallback
