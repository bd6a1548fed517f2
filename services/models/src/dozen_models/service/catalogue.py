"""The catalogue, as it should be and as others hear of it."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Protocol

from dozen.models.v1.models_events_pb2 import ModelRegistered, PriceChanged
from dozen_models.domain.catalogue import (
    Model,
    ModelCard,
    Offer,
    Price,
    Scope,
    compare,
    is_in_scope,
    is_model_id,
)
from dozen_models.errors import ModelNotFound
from dozen_models.service.messages import health_message, model_message, price_message
from dozen_models.service.store import DEPLOYMENTS_CHANNEL, Store


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


class CatalogueService:
    """Keeps the catalogue and tells the other services what is in it."""

    def __init__(self, store: CatalogueStore) -> None:
        self._store = store

    async def models(self, scope: Scope = None) -> list[Model]:
        """Give what a key may use of the catalogue, by id."""
        return [model for model in await self._store.models() if is_in_scope(model.card.id, scope)]

    async def model(self, model_id: str, scope: Scope = None) -> Model:
        """Give one model; one that the key may not use is as good as none."""
        if not is_model_id(model_id):
            raise ModelNotFound(param="model")
        model = await self._store.find(model_id) if is_in_scope(model_id, scope) else None
        if model is None:
            raise ModelNotFound(
                f"The model '{model_id}' does not exist or you do not have access to it.", param="model"
            )
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
                    if state.observed_at is not None:
                        await tx.emit(health_message(deployment_id, model.card.id, state))
