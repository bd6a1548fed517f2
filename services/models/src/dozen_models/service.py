"""The use cases of the models service."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Protocol, Self

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from prometheus_client import Gauge

from dozen.models.v1 import models_pb2
from dozen.models.v1.models_events_pb2 import DeploymentHealthChanged, ModelRegistered, PriceChanged
from dozen_models.domain import (
    Answer,
    Health,
    HealthState,
    Model,
    ModelCard,
    Offer,
    Outcome,
    Price,
    Target,
    compare,
    is_model_id,
    judge,
    targets,
)
from dozen_models.errors import ModelNotFound

HEALTHY = Gauge("dozen_models_healthy_deployments", "Healthy deployments.", ["model"])

DEPLOYMENTS_CHANNEL = "deployments"
"""Where replicas tell each other that deployments, or their health, have changed."""
_FORGET_BATCH = 1000


class Store(Protocol):
    """What both services do with the database."""

    def transaction(self) -> AbstractAsyncContextManager[Self]:
        """Give the same store in one transaction."""
        ...

    async def emit(self, event: Message) -> None:
        """Publish an event once this transaction has committed."""
        ...

    async def notify(self, channel: str, payload: str) -> None:
        """Tell all replicas once this transaction has committed."""
        ...

    async def models(self) -> list[Model]:
        """Give all models that are not retired, by id."""
        ...


class CatalogueStore(Store, Protocol):
    """Models, deployments and prices."""

    async def lock(self) -> None:
        """Keep others from changing or announcing the catalogue until this transaction ends."""
        ...

    async def find(self, model_id: str) -> Model | None:
        """Give a model that is not retired."""
        ...

    async def register(self, card: ModelCard) -> datetime:
        """Make a model and its deployments what the card says; return when the model was created."""
        ...

    async def retire(self, model_id: str) -> None:
        """Take a model and its deployments out of the catalogue."""
        ...

    async def prices(self) -> list[tuple[str, Price]]:
        """Give every price that any model has or had, retired ones too, with the model's id, oldest first."""
        ...

    async def add_price(self, price_id: str, model_id: str, nano_credits: Mapping[str, int]) -> Price:
        """Give a model a new price from now on."""
        ...


class HealthStore(Store, Protocol):
    """The health of deployments."""

    async def change_health(self, deployment_id: str, health: Health, reason: str) -> HealthState | None:
        """Write a deployment's health and a row of its history; None where it had this health already."""
        ...

    async def forget_health_changes(self, older_than: timedelta, limit: int) -> int:
        """Drop the history before a time; return how many rows."""
        ...


class Prober(Protocol):
    """Asks health URLs."""

    async def ask(self, url: str) -> Answer:
        """Ask one; return in bounded time, whatever happens."""
        ...


class CatalogueService:
    """Keeps the catalogue and tells the other services what is in it."""

    def __init__(self, store: CatalogueStore) -> None:
        self._store = store

    async def models(self) -> list[Model]:
        """Give the catalogue, by id."""
        return await self._store.models()

    async def model(self, model_id: str) -> Model:
        """Give one model."""
        if not is_model_id(model_id):
            raise ModelNotFound(param="model")
        model = await self._store.find(model_id)
        if model is None:
            raise ModelNotFound(f"The model '{model_id}' does not exist.", param="model")
        return model

    async def apply(self, offers: Sequence[Offer]) -> None:
        """Make the catalogue equal to what is offered and announce what that changes; all or nothing."""
        async with self._store.transaction() as tx:
            await tx.lock()
            changes = compare(await tx.models(), offers)
            for model in changes.retired:
                await tx.retire(model.card.id)
                nowhere = replace(model.card, deployments=())
                await tx.emit(ModelRegistered(model=model_message(nowhere, model.created_at)))
            for card in changes.registered:
                created_at = await tx.register(card)
                await tx.emit(ModelRegistered(model=model_message(card, created_at)))
            for offer in changes.priced:
                price_id = f"price_{uuid.uuid4().hex}"
                price = await tx.add_price(price_id, offer.card.id, offer.nano_credits)
                await tx.emit(PriceChanged(price=price_message(offer.card.id, price)))
            if changes.retired or changes.registered:
                await tx.notify(DEPLOYMENTS_CHANNEL, "")

    async def announce(self) -> None:
        """Say again all that is current, and every price, for consumers that have lost it or never had it.

        Old prices too, because usage that is reported late is charged by the price of its time.
        """
        async with self._store.transaction() as tx:
            await tx.lock()  # what is read here must not be announced after what replaces it
            for model_id, price in await tx.prices():
                await tx.emit(PriceChanged(price=price_message(model_id, price)))
            for model in await tx.models():
                await tx.emit(ModelRegistered(model=model_message(model.card, model.created_at)))
                for deployment_id, state in model.states.items():
                    if state.health is not Health.UNKNOWN:
                        await tx.emit(_health_changed(deployment_id, model.card.id, state))


class HealthService:
    """Probes deployments, and lets others watch how they are."""

    def __init__(self, store: HealthStore, prober: Prober) -> None:
        self._store = store
        self._prober = prober
        self._failures: dict[str, int] = {}
        self._states: Mapping[str, HealthState] = {}
        self._changed = asyncio.Event()

    async def probe(self, interval: timedelta) -> None:
        """Ask every health URL, once in each interval, without end."""
        while True:
            asked = targets(await self._store.models())
            self._failures = {url: self._failures.get(url, 0) for url in asked}
            async with asyncio.TaskGroup() as probes:
                for url, served in asked.items():
                    probes.create_task(self._probe(url, served))
                probes.create_task(asyncio.sleep(interval.total_seconds()))

    async def follow(self, changes: AsyncIterator[object]) -> None:
        """Read how all deployments are whenever any replica has changed something."""
        async for _ in changes:
            models = await self._store.models()
            HEALTHY.clear()
            for model in models:
                found = [state.health for state in model.states.values()]
                HEALTHY.labels(model.card.id).set(found.count(Health.HEALTHY))
            self._states = {key: state for model in models for key, state in model.states.items()}
            self._changed.set()
            self._changed = asyncio.Event()

    async def watch(self) -> AsyncIterator[tuple[str, HealthState]]:
        """Give the state of each deployment by its id, then each that has changed, without end.

        Of several changes that happen while the watcher is busy it gets the last.
        """
        given: dict[str, HealthState] = {}
        while True:
            changed = self._changed
            for deployment_id, state in self._states.items():
                if given.get(deployment_id) != state:
                    given[deployment_id] = state
                    yield deployment_id, state
            await changed.wait()

    async def forget(self, older_than: timedelta) -> None:
        """Drop the history before a time."""
        while await self._store.forget_health_changes(older_than, _FORGET_BATCH):
            pass

    async def _probe(self, url: str, served: Sequence[Target]) -> None:
        answer = await self._prober.ask(url)
        self._failures[url] = 0 if answer.outcome is Outcome.OK else self._failures[url] + 1
        health = judge(answer, self._failures[url])
        different = [target for target in served if target.health is not health]
        if health is None or not different:
            return
        async with self._store.transaction() as tx:
            for target in different:
                state = await tx.change_health(target.deployment_id, health, answer.reason)
                if state is not None:  # or else another replica was first
                    await tx.emit(_health_changed(target.deployment_id, target.model_id, state))
                    await tx.notify(DEPLOYMENTS_CHANNEL, target.deployment_id)


HEALTH_NUMBERS = {
    Health.UNKNOWN: models_pb2.HEALTH_UNSPECIFIED,
    Health.HEALTHY: models_pb2.HEALTH_HEALTHY,
    Health.UNHEALTHY: models_pb2.HEALTH_UNHEALTHY,
}


def model_message(card: ModelCard, created_at: datetime) -> models_pb2.Model:
    """Write a model for events and answers."""
    return models_pb2.Model(
        id=card.id,
        owned_by=card.owned_by,
        capabilities=card.capabilities,
        context_length=card.context_length,
        created_at=timestamp(created_at),
        deployments=[
            models_pb2.Deployment(
                id=deployment.id,
                model_id=card.id,
                service=deployment.service,
                address=deployment.address,
                health_url=deployment.health_url,
                priority=deployment.priority,
                weight=deployment.weight,
            )
            for deployment in card.deployments
        ],
    )


def price_message(model_id: str, price: Price) -> models_pb2.Price:
    """Write a price for events and answers."""
    return models_pb2.Price(
        id=price.id,
        model_id=model_id,
        nano_credits=price.nano_credits,
        effective_from=timestamp(price.effective_from),
    )


def timestamp(moment: datetime) -> Timestamp:
    """Write a moment for events and answers."""
    message = Timestamp()
    message.FromDatetime(moment)
    return message


def _health_changed(deployment_id: str, model_id: str, state: HealthState) -> DeploymentHealthChanged:
    assert state.observed_at is not None, "what is known was observed"
    return DeploymentHealthChanged(
        deployment_id=deployment_id,
        model_id=model_id,
        health=HEALTH_NUMBERS[state.health],
        reason=state.reason,
        observed_at=timestamp(state.observed_at),
    )
