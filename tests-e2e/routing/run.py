"""Runs: one plan under one policy, and what came of it."""

from dataclasses import dataclass
from random import Random

from routing.clock import Clock
from routing.gateways import Gateway, Policy
from routing.plan import Fault, Plan
from routing.server import Request, Server
from routing.traffic import Traffic

_WARM_UP = 60.0
"""Seconds whose requests are not counted: the caches were empty."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a run."""

    requests: int
    hit_rate: float
    """Part of the blocks of all prompts that were cached."""
    p50: float
    p99: float
    """Seconds to the first token."""
    spread: float
    """Requests of the server that had most, over those of an average one."""
    servers_of_hottest: int
    """Servers that answered a notable part of the requests with the most frequent prefix."""


def simulate(plan: Plan, policy: Policy) -> Outcome:
    """Play a plan; it is the same run every time."""
    return _Run(plan, policy).play()


class _Run:
    def __init__(self, plan: Plan, policy: Policy) -> None:
        self._plan = plan
        self._policy = policy
        self._clock = Clock()
        self._random = Random(f"network {plan.seed}")
        self._servers = [Server(self._clock, plan, number) for number in range(plan.servers)]
        self._gateways = [Gateway(self._clock, plan, number) for number in range(plan.gateways)]
        self._traffic = Traffic(self._clock, plan, self._send)

    def play(self) -> Outcome:
        plan, clock = self._plan, self._clock
        self._traffic.begin()
        self._observe()
        third, victim = plan.seconds / 3, self._servers[0]
        if plan.fault is Fault.SLOW:
            clock.later(third, victim.slow_down, plan.slowed)
            clock.later(2 * third, victim.slow_down, 1.0)
        elif plan.fault is Fault.HANGS:
            clock.later(third, victim.hang)
            clock.later(third + plan.hung_seconds, victim.wake_up)
        clock.run(plan.seconds)
        return self._judge([one for one in self._traffic.requests if one.began >= _WARM_UP])

    def _send(self, request: Request) -> None:
        gateway = self._random.choice(self._gateways)
        number = self._policy(gateway, request.prefix)
        request_id, answered = str(id(request)), request.answered

        def end() -> None:
            gateway.end(request_id)
            answered()

        request.answered = end
        gateway.begin(request_id, number)
        self._servers[number].take(request)

    def _observe(self) -> None:
        """Let every gateway hear how the servers do, some time later."""
        seen = {f"server-{server.number}": server.observe() for server in self._servers}
        for gateway in self._gateways:
            self._clock.later(self._random.random() * self._plan.observed_late, gateway.hear, seen)
        self._clock.later(self._plan.observed_every, self._observe)

    def _judge(self, requests: list[Request]) -> Outcome:
        # Who still waits at the end has waited at least that long.
        waited = sorted((one.first_token or self._plan.seconds) - one.began for one in requests)
        started = [one for one in requests if one.first_token is not None]
        taken = [sum(one.server == server.number for one in requests) for server in self._servers]
        by_prefix: dict[str, list[int]] = {}
        for one in requests:
            by_prefix.setdefault(one.prefix, []).append(one.server)
        hottest = max(by_prefix.values(), key=len)
        return Outcome(
            requests=len(requests),
            hit_rate=sum(one.cached for one in started) / sum(len(one.blocks) for one in started),
            p50=waited[len(waited) // 2],
            p99=waited[len(waited) * 99 // 100],
            spread=max(taken) * len(taken) / len(requests),
            servers_of_hottest=sum(
                hottest.count(number) > len(hottest) / 20 for number in range(self._plan.servers)
            ),
        )
