"""Clients, and the services that serve what gateways admit and report what it used."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dozen_credits.domain.metering import Usage
from dozen_gateway.domain.bounds import Asked
from dozen_gateway.domain.decision import Facts
from dozen_gateway.domain.rejections import Rejection
from dozen_gateway.service.decisions import Passage
from simulation.bank import Bank, usage
from simulation.gateway import Gateway
from simulation.plan import Plan
from simulation.promises import Promise, Promises
from simulation.transport import Reports
from simulation.world import World

COMPLETIONS = "/v1/completions"
IMAGES = "/v1/images/analyses"
OVERDUE = 1.5
"""After how many times the longest request usage comes that is late."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a client asks."""

    id: str
    account_id: str
    key_id: str
    facts: Facts


class Service:
    """A process that serves requests; its outbox outlives it."""

    def __init__(
        self, world: World, plan: Plan, bank: Bank, promises: Promises, reports: Reports, name: str
    ) -> None:
        self._world = world
        self._plan = plan
        self._bank = bank
        self._promises = promises
        self._reports = reports
        self._name = name
        self._running: dict[asyncio.Task[None], Request] = {}
        self._outbox: list[Usage] = []
        self._sent: list[Usage] = []

    @property
    def is_busy(self) -> bool:
        """Whether there is anything that it has yet to report."""
        return bool(self._running or self._outbox)

    def serve(self, request: Request, passage: Passage) -> "asyncio.Task[None]":
        """Begin to serve a request."""
        task = self._world.start(self._serve(request, passage))
        self._running[task] = request
        task.add_done_callback(lambda ended: self._running.pop(ended, None))
        return task

    def crash(self) -> None:
        """Lose all requests that run: they are never reported."""
        self._world.note(f"{self._name} crashes under {len(self._running)} requests")
        for task, request in self._running.items():
            task.cancel()
            self._promises.abandon(request.id)

    async def _serve(self, request: Request, passage: Passage) -> None:
        world, random = self._world, self._world.random
        # Sometimes as long as leaves just enough time to report it.
        longest = 0.3 * self._plan.longest_request if random.random() < 0.2 else 1.5
        await world.wait(random.random() * longest)
        quantities = {} if random.random() < 0.15 else self._use(request, passage)
        self._promises.report(request.id, request.account_id, quantities)
        world.note(f"{request.id} has used {quantities or 'nothing'}")
        self._outbox.append(
            usage(
                request.id,
                request.account_id,
                request.key_id,
                passage.admission.facts.get("reservation", ""),
                quantities,
                self._bank.tables.now(),
            )
        )
        if self._plan.is_overdue and random.random() < 0.2:
            overdue = [self._outbox.pop()]
            world.later(self._plan.longest_request * OVERDUE, self._reports.send, overdue)
        else:
            world.later(random.random() * 0.5, self._relay)

    def _use(self, request: Request, passage: Passage) -> dict[str, int]:
        facts, asked, random = passage.admission.facts, request.facts.asked, self._world.random
        part = 1.0 if random.random() < 0.4 else random.random()
        if "max-units" in facts:
            return {"images": int(facts["max-units"])}
        output = int(asked.choices * int(facts["max-tokens"]) * part)
        return {"input_tokens": max(1, int(asked.body_bytes * part)), "output_tokens": output}

    def _relay(self) -> None:
        """Report what has gathered, in messages of any size, and some of it once more."""
        random = self._world.random
        self._sent += self._outbox
        while self._outbox:
            size = random.randint(1, len(self._outbox))
            self._reports.send(self._outbox[:size])
            del self._outbox[:size]
        if self._world.happens(self._plan.faults.repeated):
            again = random.sample(self._sent, random.randint(1, len(self._sent)))
            self._world.later(random.random() * 10, self._reports.send, again)


class Clients:
    """All who call."""

    def __init__(
        self,
        world: World,
        plan: Plan,
        promises: Promises,
        services: Sequence[Service],
        gateways: Callable[[], Sequence[Gateway]],
        keys: Sequence[tuple[str, str, str]],
    ) -> None:
        """Each key has its account, its id and its text."""
        self._world = world
        self._plan = plan
        self._promises = promises
        self._services = services
        self._gateways = gateways
        self._keys = keys
        self._count = 0
        self.in_flight = 0
        self.admitted = 0

    def call(self) -> None:
        """Make a call, or several at once."""
        for _ in range(self._world.random.choice((1, 1, 1, 3, 8))):
            self._call(self._request())

    async def probe(self, account_id: str) -> str:
        """Make the smallest call with a key without a budget; give the code of its rejection, or nothing."""
        account_id, key_id, text = next(key for key in self._keys if key[0] == account_id)
        self._count += 1
        facts = Facts("POST", COMPLETIONS, "smol", asked=Asked(1, 1, 1), api_key=text)
        request = Request(f"probe{self._count}", account_id, key_id, facts)
        return await self._serve(self._world.random.choice(self._gateways()), request)

    def _request(self) -> Request:
        random = self._world.random
        self._count += 1
        account_id, key_id, text = random.choice(self._keys)
        if random.random() < 0.2:
            facts = Facts("POST", IMAGES, "smol", asked=Asked(100), api_key=text)
        else:
            most = None if random.random() < 0.2 else random.randint(1, 40)
            choices = random.choice((1, 1, 2))
            asked = Asked(random.randint(1, 60), choices, most)
            facts = Facts("POST", COMPLETIONS, "smol", asked=asked, api_key=text)
        return Request(f"req{self._count}", account_id, key_id, facts)

    def _call(self, request: Request) -> None:
        world, random = self._world, self._world.random
        if not (gateways := self._gateways()):
            return
        self.in_flight += 1
        if world.happens(0.1):  # asked for twice, as by a proxy that gave up waiting for the first decision
            first = random.choice(gateways)
            first.run(self._decide(first, request))
            world.later(random.random(), self._send, request)
        else:
            self._send(request)

    def _send(self, request: Request) -> None:
        if not (gateways := self._gateways()):
            self.in_flight -= 1
            return
        gateway = self._world.random.choice(gateways)
        task = gateway.run(self._serve(gateway, request))
        task.add_done_callback(self._answered)
        if self._world.happens(0.05):
            self._world.later(self._world.random.random() * 3, task.cancel)  # the client leaves

    def _answered(self, _: object) -> None:
        self.in_flight -= 1

    async def _serve(self, gateway: Gateway, request: Request) -> str:
        random = self._world.random
        decision = await self._decide(gateway, request)
        if isinstance(decision, Rejection):
            return decision.code
        if self._world.happens(0.05):
            self._world.note(f"{request.id} is not sent")
            self._promises.abandon(request.id)
            gateway.decisions.finish(request.id, unsent=True)
            return "unsent"
        try:
            await asyncio.wait((random.choice(self._services).serve(request, decision),))
        finally:
            gateway.decisions.finish(request.id)
        return ""

    async def _decide(self, gateway: Gateway, request: Request) -> Passage | Rejection:
        decision = await gateway.decisions.decide(request.facts, request.id, self._plan.lifetime)
        if isinstance(decision, Rejection):
            self._world.note(f"{request.id} is rejected by {gateway.name}: {decision.code}")
            return decision
        self.admitted += 1
        hold = gateway.state.holds.get(request.id)
        lease_id = decision.admission.facts.get("reservation", "")
        self._world.expect(hold is not None, f"{request.id} is admitted without a hold")
        if hold is not None:
            self._world.note(
                f"{request.id} is admitted by {gateway.name} for {hold.nano_credits} in"
                f" {self._promises.name(lease_id)}"
            )
            lapses_at = self._world.time + self._plan.longest_request
            self._promises.make(
                Promise(
                    request.id, request.account_id, request.key_id, lease_id, hold.nano_credits, lapses_at
                )
            )
        return decision
