"""Gateways: their own code with what they hear, and other ways to choose for comparison."""

from collections.abc import Mapping
from random import Random
from typing import Protocol

from dozen_gateway.domain.loads import Observation
from dozen_gateway.domain.routing import find_deployments
from dozen_gateway.domain.state import Deployment, Model, State
from routing.clock import Clock
from routing.plan import Plan

SERVICE = "chat"


def model(plan: Plan) -> Model:
    """Give the model that all servers serve."""
    servers = (Deployment(f"server-{number}", SERVICE, "http://x", 1, 100) for number in range(plan.servers))
    return Model("smol", frozenset({"chat"}), 8192, tuple(servers))


class Gateway:
    """One replica: it knows what it has sent, and what it has heard."""

    def __init__(self, clock: Clock, plan: Plan, number: int) -> None:
        self.clock = clock
        self.random = Random(f"gateway {plan.seed} {number}")
        self.model = model(plan)
        self.state = State()
        self.turn = self.random.randrange(plan.servers)

    def hear(self, seen: Mapping[str, Observation], observer: str = "chat-1") -> None:
        """Take over what somebody observed."""
        self.state.loads.observe(observer, seen, self.clock.now)

    def begin(self, request_id: str, number: int) -> None:
        """Send a request."""
        self.state.loads.begin(request_id, f"server-{number}", self.clock.now)

    def end(self, request_id: str) -> None:
        """Have its answer."""
        self.state.loads.end(request_id)

    def load(self, number: int) -> int:
        """Estimate the requests at a server."""
        load = self.state.loads.known.get(f"server-{number}")
        return 0 if load is None else load.at(self.clock.now)


class Policy(Protocol):
    """Chooses the server of a request."""

    def __call__(self, gateway: Gateway, prefix: str) -> int:
        """Give its number."""
        ...


def round_robin(gateway: Gateway, prefix: str) -> int:
    """Take one after the other."""
    gateway.turn += 1
    return gateway.turn % len(gateway.model.deployments)


def least_load(gateway: Gateway, prefix: str) -> int:
    """Take the one with the fewest requests."""
    numbers = range(len(gateway.model.deployments))
    return min(numbers, key=lambda number: (gateway.load(number), gateway.random.random()))


def affinity(gateway: Gateway, prefix: str) -> int:
    """Take the one that a prefix belongs to, however busy it is."""
    return _first(gateway, prefix, State())


def two_choices(gateway: Gateway, prefix: str) -> int:
    """Take what our gateway takes where there is no prefix."""
    return _first(gateway, "", gateway.state)


def ours(gateway: Gateway, prefix: str) -> int:
    """Take what our gateway takes."""
    return _first(gateway, prefix, gateway.state)


def _first(gateway: Gateway, prefix: str, state: State) -> int:
    found = find_deployments(gateway.model, SERVICE, prefix, state, gateway.clock.now, gateway.random)
    return int(found[0].id.removeprefix("server-"))


POLICIES: Mapping[str, Policy] = {
    "round robin": round_robin,
    "least load": least_load,
    "two choices": two_choices,
    "affinity, no bound": affinity,
    "ours": ours,
}
