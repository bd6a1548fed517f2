"""The health of deployments: what probes and callers make of it, and who hears of that."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from datetime import timedelta
from typing import NamedTuple, Protocol

from prometheus_client import Gauge

from dozen.models.v1 import models_events_pb2
from dozen.models.v1.models_events_pb2 import UpstreamObservation, UpstreamsObserved
from dozen_models.domain.catalogue import Model
from dozen_models.domain.health import Answer, Health, HealthState, Outcome, judge
from dozen_models.domain.sightings import (
    TRUSTED_SECONDS,
    Breaker,
    Finding,
    Observation,
    Sightings,
    find,
    see,
)
from dozen_models.domain.targets import Target, targets
from dozen_models.service.messages import health_message
from dozen_models.service.store import DEPLOYMENTS_CHANNEL, Store

HEALTHY = Gauge("dozen_models_healthy_deployments", "Healthy deployments.", ["model"])

_FORGET_BATCH = 1000
_RENEWAL_SECONDS = 1.0
_SILENCE = "nobody has told of it lately"

_BREAKERS = {
    models_events_pb2.BREAKER_STATE_OPEN: Breaker.OPEN,
    models_events_pb2.BREAKER_STATE_HALF_OPEN: Breaker.HALF_OPEN,
}


class HealthStore(Store, Protocol):
    """The health of deployments."""

    async def change_health(self, deployment_id: str, health: Health, reason: str) -> HealthState | None:
        """Write a deployment's health and a row of its history.

        None where it had this health already, and where it is held down and this is not unhealthy.
        """
        ...

    async def hold_down(self, deployment_id: str, seconds: float) -> None:
        """Keep a deployment from becoming anything but unhealthy for so long."""
        ...

    async def release(self, deployment_id: str) -> None:
        """Hold a deployment down no longer."""
        ...

    async def forget_health_changes(self, older_than: timedelta, limit: int) -> int:
        """Drop the history before a time; return how many rows."""
        ...


class Prober(Protocol):
    """Asks health URLs."""

    async def ask(self, url: str) -> Answer:
        """Ask one; return in bounded time, whatever happens."""
        ...


class _Known(NamedTuple):
    model_id: str
    state: HealthState
    health_url: str


class HealthService:
    """Probes deployments, hears of them from their callers, and lets others watch how they are."""

    def __init__(
        self, store: HealthStore, prober: Prober, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._store = store
        self._prober = prober
        self._clock = clock
        self._failures: dict[str, int] = {}
        self._probed: dict[str, Finding] = {}
        """What the last probe of a health URL found, unless it was too early to say."""
        self._known: Mapping[str, _Known] = {}
        self._sightings: dict[str, Sightings] = {}
        self._held: dict[str, float] = {}
        """When this replica last held a deployment down."""
        self._changed = asyncio.Event()

    async def probe(self, interval: timedelta) -> None:
        """Ask every health URL, once in each interval, without end."""
        while True:
            asked = targets(await self._store.models())
            seen_by_callers = asked.pop("", [])
            self._failures = {url: self._failures.get(url, 0) for url in asked}
            self._probed = {url: found for url, found in self._probed.items() if url in asked}
            async with asyncio.TaskGroup() as probes:
                for url, served in asked.items():
                    probes.create_task(self._probe(url, served))
                probes.create_task(self._give_up(seen_by_callers))
                probes.create_task(asyncio.sleep(interval.total_seconds()))

    async def hear(self, facts: AsyncIterator[UpstreamsObserved]) -> None:
        """Take over what callers tell of deployments as long as they do."""
        async for fact in facts:
            for told in fact.upstreams:
                known = self._known.get(told.deployment_id)
                if known is not None:
                    await self._see(known, told, fact.observer)

    async def follow(self, changes: AsyncIterator[object]) -> None:
        """Read how all deployments are whenever any replica has changed something."""
        async for _ in changes:
            models = await self._store.models()
            HEALTHY.clear()
            for model in models:
                found = [state.health for state in model.states.values()]
                HEALTHY.labels(model.card.id).set(found.count(Health.HEALTHY))
            self._known = _known(models)
            for gone in self._sightings.keys() - self._known.keys():
                del self._sightings[gone]
            self._changed.set()
            self._changed = asyncio.Event()

    async def watch(self) -> AsyncIterator[tuple[str, HealthState]]:
        """Give the state of each deployment by its id, then each that has changed, without end.

        Of several changes that happen while the watcher is busy it gets the last.
        """
        given: dict[str, HealthState] = {}
        while True:
            changed = self._changed
            for deployment_id, (_, state, _) in self._known.items():
                if given.get(deployment_id) != state:
                    given[deployment_id] = state
                    yield deployment_id, state
            await changed.wait()

    async def forget(self, older_than: timedelta) -> None:
        """Drop the history before a time."""
        while await self._store.forget_health_changes(older_than, _FORGET_BATCH):
            pass

    async def _probe(self, url: str, served: Collection[Target]) -> None:
        answer = await self._prober.ask(url)
        self._failures[url] = 0 if answer.outcome is Outcome.OK else self._failures[url] + 1
        if health := judge(answer, self._failures[url]):
            self._probed[url] = Finding(health, answer.reason)
            await self._change(served, self._probed[url])

    async def _give_up(self, served: Collection[Target]) -> None:
        """Let those that were held down, and are not any more, be tried: no probe will tell how they are."""
        unhealthy = [target for target in served if target.health is Health.UNHEALTHY]
        await self._change(unhealthy, Finding(Health.UNKNOWN, _SILENCE))

    async def _see(self, known: _Known, told: UpstreamObservation, observer: str) -> None:
        id, now = told.deployment_id, self._clock()
        breaker = _BREAKERS.get(told.breaker, Breaker.CLOSED)
        observation = Observation(observer, breaker, told.requests, told.ended, told.failed)
        self._sightings[id] = see(self._sightings.get(id, {}), observation, now)
        finding = find(self._sightings[id])
        target = Target(id, known.model_id, known.state.health)
        if finding and finding.health is Health.UNHEALTHY:
            if now - self._held.get(id, float("-inf")) >= _RENEWAL_SECONDS:
                self._held[id] = now
                await self._store.hold_down(id, TRUSTED_SECONDS)
            await self._change([target], finding)
            return
        was_held = self._held.pop(id, None) is not None
        if was_held:
            await self._store.release(id)
        if known.health_url:
            finding = self._probed.get(known.health_url) if was_held else None
        elif finding and finding.health is Health.UNKNOWN and target.health is not Health.UNHEALTHY:
            finding = None  # one that has done well is not forgotten for being tried again elsewhere
        if finding:
            await self._change([target], finding)

    async def _change(self, served: Collection[Target], finding: Finding) -> None:
        different = [target for target in served if target.health is not finding.health]
        if not different:
            return
        async with self._store.transaction() as tx:
            for target in different:
                state = await tx.change_health(target.deployment_id, finding.health, finding.reason)
                if state is not None:  # or else another replica was first, or it is held down
                    await tx.emit(health_message(target.deployment_id, target.model_id, state))
                    await tx.notify(DEPLOYMENTS_CHANNEL, target.deployment_id)


def _known(models: Collection[Model]) -> dict[str, _Known]:
    return {
        deployment.id: _Known(model.card.id, model.states[deployment.id], deployment.health_url)
        for model in models
        for deployment in model.card.deployments
    }
