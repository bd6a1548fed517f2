"""All servers of a model fail at once for a while, and official clients try again."""

from dataclasses import dataclass
from random import Random

from dozen_gateway.domain.loads import Observation
from dozen_gateway.domain.rejections import model_unavailable
from dozen_gateway.domain.routing import find_deployments
from dozen_inference.breakers import Breaker, State
from dozen_inference.budget import RetryBudget
from routing.clock import Clock
from routing.gateways import SERVICE, Gateway
from routing.plan import Plan

OUTAGE = (60.0, 120.0)
_SECONDS = 200.0
_CALLS = 20.0
"""That clients begin each second."""
_RETRIES = 2
_FAILS_AFTER = 0.05
_ANSWERS_AFTER = 0.5


@dataclass(slots=True)
class Outcome:
    """What came of an outage."""

    calls: int = 0
    """That clients began during the outage, without their retries."""
    asked: int = 0
    """Requests that reached the gateways during the outage."""
    attempts: int = 0
    """Requests that reached servers during the outage."""
    recovered: float = 0.0
    """Seconds from its end until the last call that failed for good."""
    peak: int = 0
    """Most attempts within a second, from the end of the outage on."""


class _Chat:
    """A process of the service, with its own breakers and its own budget of retries."""

    def __init__(self, clock: Clock, random: Random, servers: list[str]) -> None:
        self.breakers = {server: Breaker(clock=lambda: clock.now, jitter=random.random) for server in servers}
        self.budget = RetryBudget()

    def observe(self) -> dict[str, Observation]:
        return {
            server: Observation(is_open=breaker.state is State.OPEN)
            for server, breaker in self.breakers.items()
        }


class Outage:
    """One run."""

    def __init__(self, seed: int) -> None:
        plan = Plan(seed)
        self._clock = Clock()
        self._random = Random(f"outage {seed}")
        self._gateways = [Gateway(self._clock, plan, number) for number in range(plan.gateways)]
        servers = [deployment.id for deployment in self._gateways[0].model.deployments]
        self._chats = [_Chat(self._clock, self._random, servers) for _ in range(2)]
        self._outcome = Outcome()
        self._after: dict[int, int] = {}

    def play(self) -> Outcome:
        """Play it; it is the same every time."""
        self._call()
        self._observe()
        self._clock.run(_SECONDS)
        self._outcome.peak = max(self._after.values())
        return self._outcome

    @property
    def _is_out(self) -> bool:
        return OUTAGE[0] <= self._clock.now < OUTAGE[1]

    def _call(self) -> None:
        self._clock.later(self._random.expovariate(_CALLS), self._call)
        self._outcome.calls += self._is_out
        self._ask(0)

    def _ask(self, retries: int) -> None:
        """Ask a gateway."""
        self._outcome.asked += self._is_out
        gateway = self._random.choice(self._gateways)
        found = find_deployments(gateway.model, SERVICE, "", gateway.state, self._clock.now, gateway.random)
        if not found:
            headers = model_unavailable(gateway.model.id, gateway.random).headers
            self._again(retries, int(headers["retry-after-ms"]) / 1000)
            return
        chat = self._random.choice(self._chats)
        chat.budget.earn()
        self._try(chat, [deployment.id for deployment in found], retries, is_retry=False)

    def _try(self, chat: _Chat, servers: list[str], retries: int, *, is_retry: bool) -> None:
        """Try the first server whose breaker lets it pass."""
        for number, server in enumerate(servers):
            entered = chat.breakers[server].enter()
            if not entered:
                continue
            if is_retry and not chat.budget.spend():
                chat.breakers[server].leave(entered, None)
                break
            self._count()
            is_out = self._is_out
            self._clock.later(
                _FAILS_AFTER if is_out else _ANSWERS_AFTER,
                self._end, chat, server, entered, servers[number + 1 :], retries, is_out,
            )  # fmt: skip
            return
        self._again(retries, 1.0 if not is_retry else None)

    def _end(
        self, chat: _Chat, server: str, entered: int, left: list[str], retries: int, failed: bool
    ) -> None:
        chat.breakers[server].leave(entered, failed)
        if failed:
            self._try(chat, left, retries, is_retry=True)

    def _again(self, retries: int, retry_after: float | None) -> None:
        """Do as an official client that was told 503."""
        if retries == _RETRIES:
            self._outcome.recovered = max(0.0, self._clock.now - OUTAGE[1])
            return
        own = min(0.5 * 2**retries, 8.0) * (1 - 0.25 * self._random.random())
        self._clock.later(own if retry_after is None else retry_after, self._ask, retries + 1)

    def _count(self) -> None:
        self._outcome.attempts += self._is_out
        if self._clock.now >= OUTAGE[1]:
            second = int(self._clock.now)
            self._after[second] = self._after.get(second, 0) + 1

    def _observe(self) -> None:
        for number, chat in enumerate(self._chats):
            seen = chat.observe()
            for gateway in self._gateways:
                self._clock.later(self._random.random() * 0.3, gateway.hear, seen, f"chat-{number}")
        self._clock.later(1.0, self._observe)
