"""Use cases of the models service, on a store in memory and on PostgreSQL alike."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from operator import itemgetter
from typing import Self

import pytest
from google.protobuf.message import Message

from dozen.models.v1 import models_pb2
from dozen.models.v1.models_events_pb2 import (
    BREAKER_STATE_CLOSED as CLOSED,
)
from dozen.models.v1.models_events_pb2 import (
    BREAKER_STATE_HALF_OPEN as HALF_OPEN,
)
from dozen.models.v1.models_events_pb2 import (
    BREAKER_STATE_OPEN as OPEN,
)
from dozen.models.v1.models_events_pb2 import (
    DeploymentHealthChanged,
    ModelRegistered,
    PriceChanged,
    UpstreamObservation,
    UpstreamsObserved,
)
from dozen_models.domain.catalogue import Deployment, Model, ModelCard, Offer, Price, Upstream
from dozen_models.domain.health import Answer, Health, HealthState, Outcome
from dozen_models.errors import ModelNotFound
from dozen_models.repository import ModelsRepository
from dozen_models.service.catalogue import CatalogueService
from dozen_models.service.health import HEALTHY, HealthService

OK = Answer(Outcome.OK, "answered 200")
LATE = Answer(Outcome.TIMEOUT, "no answer within 2 s")
REFUSED = Answer(Outcome.REFUSED, "connection refused")


@dataclass
class FakeStore:
    """Catalogue, health and events in memory."""

    created: dict[str, datetime] = field(default_factory=dict)
    cards: dict[str, ModelCard] = field(default_factory=dict)
    priced: list[tuple[str, Price]] = field(default_factory=list)
    states: dict[str, HealthState] = field(default_factory=dict)
    events: list[Message] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    held: set[str] = field(default_factory=set)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Self]:
        yield self

    async def emit(self, event: Message) -> None:
        self.events.append(event)

    async def notify(self, channel: str, payload: str) -> None:
        self.told.append(payload)

    async def lock(self) -> None:
        pass

    async def models(self) -> list[Model]:
        current = dict(self.priced)
        return [
            Model(card, self.created[id], current[id], {d.id: self.states[d.id] for d in card.deployments})
            for id, card in sorted(self.cards.items())
        ]

    async def find(self, model_id: str) -> Model | None:
        return next((model for model in await self.models() if model.card.id == model_id), None)

    async def register(self, card: ModelCard) -> datetime:
        await self.retire(card.id, {deployment.id for deployment in card.deployments})
        self.cards[card.id] = card
        self.states = {d.id: HealthState() for d in card.deployments} | self.states
        return self.created.setdefault(card.id, datetime.now(UTC))

    async def retire(self, model_id: str, kept: set[str] = frozenset()) -> None:  # type: ignore[assignment]
        if card := self.cards.pop(model_id, None):
            for gone in {deployment.id for deployment in card.deployments} - kept:
                del self.states[gone]

    async def add_price(self, price_id: str, model_id: str, nano_credits: Mapping[str, int]) -> Price:
        price = Price(price_id, nano_credits, datetime.now(UTC))
        self.priced.append((model_id, price))
        return price

    async def prices(self) -> list[tuple[str, Price]]:
        return self.priced

    async def change_health(self, deployment_id: str, health: Health, reason: str) -> HealthState | None:
        if self.states[deployment_id].health is health:
            return None
        if deployment_id in self.held and health is not Health.UNHEALTHY:
            return None
        self.states[deployment_id] = HealthState(health, reason, datetime.now(UTC))
        return self.states[deployment_id]

    async def hold_down(self, deployment_id: str, seconds: float) -> None:
        self.held.add(deployment_id)

    async def release(self, deployment_id: str) -> None:
        self.held.discard(deployment_id)

    async def forget_health_changes(self, older_than: timedelta, limit: int) -> int:
        return 0


class OutOfAnswers(Exception):
    """The script of a prober has come to its end."""


@dataclass
class ScriptedProber:
    """Answers as it is told, then ends the probing."""

    answers: dict[str, list[Answer]]
    asked: list[str] = field(default_factory=list)

    async def ask(self, url: str) -> Answer:
        if not self.answers[url]:
            raise OutOfAnswers
        self.asked.append(url)
        return self.answers[url].pop(0)


@dataclass
class Stage:
    """A store, and what was emitted to it."""

    store: FakeStore | ModelsRepository

    async def apply(self, *offers: Offer) -> list[Message]:
        await CatalogueService(self.store).apply(offers)
        return await self.events()

    async def probe(self, **answers: list[Answer]) -> list[Message]:
        script = {f"http://{host}/health": list(said) for host, said in answers.items()}
        try:
            await HealthService(self.store, ScriptedProber(script)).probe(timedelta(0))
        except* OutOfAnswers:
            pass
        return await self.events()

    async def hear(self, health: HealthService, *observed: UpstreamObservation) -> list[Message]:
        """Let a replica, which knows the catalogue as it is, hear what callers tell one after the other."""
        for one in observed:
            await health.follow(told(None))
            await health.hear(facts(UpstreamsObserved(observer="chat-1", upstreams=[one])))
        return await self.events()

    async def events(self) -> list[Message]:
        """Take the events that were emitted."""
        if isinstance(self.store, FakeStore):
            taken, self.store.events = self.store.events, []
            return taken
        rows = await self.store.db.fetch("delete from outbox returning id, subject, payload")
        kinds = {
            str(k.DESCRIPTOR.full_name): k for k in (ModelRegistered, PriceChanged, DeploymentHealthChanged)
        }
        return [
            kinds[row["subject"]].FromString(row["payload"]) for row in sorted(rows, key=itemgetter("id"))
        ]


@pytest.fixture(params=["memory", pytest.param("postgres", marks=pytest.mark.integration)])
def stage(request: pytest.FixtureRequest) -> Stage:
    """An empty catalogue."""
    if request.param == "memory":
        return Stage(FakeStore())
    return Stage(ModelsRepository(request.getfixturevalue("database")))


def offer(id: str = "acme/llama", *, price: int = 150, **hosts: str) -> Offer:
    """Offer a model with a deployment for each keyword, at that host."""
    deployments = tuple(
        Deployment(name, "chat", "http://chat:8080", f"http://{host}/health" if host else "", priority, 100)
        for priority, (name, host) in enumerate((hosts or {"one": "a"}).items())
    )
    return Offer(ModelCard(id, "acme", ("chat",), 2048, deployments), {"input_tokens": price})


def names(events: list[Message]) -> list[str]:
    return [event.DESCRIPTOR.name for event in events]


def healths(events: list[Message]) -> list[tuple[str, int, str]]:
    assert all(isinstance(event, DeploymentHealthChanged) for event in events)
    return [(e.deployment_id, e.health, e.reason) for e in events if isinstance(e, DeploymentHealthChanged)]


async def test_a_new_model_is_announced_whole_with_its_price(stage: Stage) -> None:
    registered, priced = await stage.apply(offer(one="a", two="b"))
    assert isinstance(registered, ModelRegistered)
    assert registered.model.id == "acme/llama"
    assert registered.model.owned_by == "acme"
    assert list(registered.model.capabilities) == ["chat"]
    assert registered.model.context_length == 2048
    assert [(d.id, d.model_id, d.health_url) for d in registered.model.deployments] == [
        ("one", "acme/llama", "http://a/health"),
        ("two", "acme/llama", "http://b/health"),
    ]
    assert isinstance(priced, PriceChanged)
    assert priced.price.model_id == "acme/llama"
    assert dict(priced.price.nano_credits) == {"input_tokens": 150}
    assert abs(priced.price.effective_from.ToDatetime(UTC) - datetime.now(UTC)) < timedelta(minutes=1)


async def test_the_same_again_changes_nothing(stage: Stage) -> None:
    await stage.apply(offer(), offer("other", two="b"))
    before = await stage.store.models()
    assert await stage.apply(offer(), offer("other", two="b")) == []
    assert await stage.store.models() == before


async def test_a_changed_price_is_a_new_price(stage: Stage) -> None:
    _, first = await stage.apply(offer())
    (second,) = await stage.apply(offer(price=151))
    assert isinstance(first, PriceChanged)
    assert isinstance(second, PriceChanged)
    assert second.price.id != first.price.id
    assert second.price.effective_from.ToDatetime() > first.price.effective_from.ToDatetime()
    (model,) = await stage.store.models()
    assert (model.price.id, dict(model.price.nano_credits)) == (second.price.id, {"input_tokens": 151})


async def test_a_changed_model_is_announced_and_keeps_its_creation(stage: Stage) -> None:
    before, _ = await stage.apply(offer(one="a", two="b"))
    (after,) = await stage.apply(offer(one="a", three="c"))
    assert isinstance(before, ModelRegistered)
    assert isinstance(after, ModelRegistered)
    assert [deployment.id for deployment in after.model.deployments] == ["one", "three"]
    assert after.model.created_at == before.model.created_at
    (model,) = await stage.store.models()
    assert list(model.states) == ["one", "three"]


async def test_a_model_that_is_gone_is_announced_without_deployments_and_not_listed(stage: Stage) -> None:
    await stage.apply(offer(), offer("other", two="b"))
    (event,) = await stage.apply(offer("other", two="b"))
    assert isinstance(event, ModelRegistered)
    assert (event.model.id, len(event.model.deployments)) == ("acme/llama", 0)
    assert [model.card.id for model in await stage.store.models()] == ["other"]
    with pytest.raises(ModelNotFound):
        await CatalogueService(stage.store).model("acme/llama")


async def test_a_model_that_comes_back_is_as_it_was_but_its_health_is_found_anew(stage: Stage) -> None:
    before, _ = await stage.apply(offer())
    await stage.probe(a=[OK])
    await stage.apply()
    after = (await stage.apply(offer()))[0]
    assert isinstance(before, ModelRegistered)
    assert isinstance(after, ModelRegistered)
    assert after == before
    (model,) = await stage.store.models()
    assert model.health is Health.UNKNOWN


@pytest.mark.parametrize(("source", "destination"), [("a", "b"), ("b", "a")])
async def test_a_deployment_moves_to_another_model(stage: Stage, source: str, destination: str) -> None:
    await stage.apply(*sorted([offer(source, moved="x"), offer(destination, other="y")], key=str))
    await stage.apply(offer(destination, other="y", moved="x"))
    (model,) = await stage.store.models()
    assert (model.card.id, sorted(model.states)) == (destination, ["moved", "other"])


async def test_everything_current_and_every_price_is_announced_again(stage: Stage) -> None:
    model, gone, price, price_of_gone = await stage.apply(offer(one="a", two="b"), offer("gone", three="c"))
    _, dearer = await stage.apply(offer(one="a", two="b", price=200))
    found = await stage.probe(a=[OK], b=[LATE])
    await CatalogueService(stage.store).announce()
    again = await stage.events()
    assert names([model, gone, price, price_of_gone]) == ["ModelRegistered"] * 2 + ["PriceChanged"] * 2
    assert again == [price, price_of_gone, dearer, model, *found]
    await CatalogueService(stage.store).announce()
    assert await stage.events() == again


async def test_a_model_that_does_not_exist_is_not_found(stage: Stage) -> None:
    await stage.apply(offer())
    catalogue = CatalogueService(stage.store)
    assert (await catalogue.model("acme/llama")).card.id == "acme/llama"
    for absent in ("acme", "acme/llama/x", "\x00", "m" * 1000):
        with pytest.raises(ModelNotFound):
            await catalogue.model(absent)


async def test_a_change_of_health_is_announced_once_for_each_deployment(stage: Stage) -> None:
    await stage.apply(offer(one="a", two="a"))
    events = await stage.probe(a=[OK, OK, REFUSED, REFUSED, OK])
    assert healths(events) == [
        ("one", models_pb2.HEALTH_HEALTHY, "answered 200"),
        ("two", models_pb2.HEALTH_HEALTHY, "answered 200"),
        ("one", models_pb2.HEALTH_UNHEALTHY, "connection refused"),
        ("two", models_pb2.HEALTH_UNHEALTHY, "connection refused"),
        ("one", models_pb2.HEALTH_HEALTHY, "answered 200"),
        ("two", models_pb2.HEALTH_HEALTHY, "answered 200"),
    ]
    times = [e.observed_at.ToNanoseconds() for e in events if isinstance(e, DeploymentHealthChanged)]
    assert times[0] < times[2] < times[4]


async def test_failures_count_in_a_row(stage: Stage) -> None:
    await stage.apply(offer())
    assert healths(await stage.probe(a=[OK, LATE, OK, LATE])) == [
        ("one", models_pb2.HEALTH_HEALTHY, "answered 200")
    ]
    assert healths(await stage.probe(a=[LATE, LATE])) == [
        ("one", models_pb2.HEALTH_UNHEALTHY, "no answer within 2 s")
    ]


async def test_a_shared_health_url_is_asked_once_a_round() -> None:
    stage = Stage(FakeStore())
    await stage.apply(offer(one="a", two="a"), offer("other", three="a"))
    prober = ScriptedProber({"http://a/health": [OK, OK]})
    with pytest.raises(ExceptionGroup):
        await HealthService(stage.store, prober).probe(timedelta(0))
    assert prober.asked == ["http://a/health"] * 2


async def told(*payloads: str | None) -> AsyncIterator[str | None]:
    for payload in payloads:
        yield payload


async def test_a_watcher_gets_all_states_then_what_changes(stage: Stage) -> None:
    await stage.apply(offer(one="a", two="b"))
    await stage.probe(a=[OK], b=[REFUSED])
    health = HealthService(stage.store, ScriptedProber({}))
    watching = health.watch()
    first = asyncio.ensure_future(anext(watching))
    await asyncio.sleep(0)
    assert not first.done(), "nothing is known before it was read"
    await health.follow(told(None))
    states = dict([await first, await anext(watching)])
    assert {key: state.health for key, state in states.items()} == {
        "one": Health.HEALTHY,
        "two": Health.UNHEALTHY,
    }
    await stage.probe(a=[REFUSED, OK, REFUSED], b=[REFUSED] * 3)
    await health.follow(told("one", "one", "one"))
    deployment, state = await anext(watching)
    assert (deployment, state.health, state.reason) == ("one", Health.UNHEALTHY, "connection refused")
    following = asyncio.ensure_future(anext(watching))
    await asyncio.sleep(0)
    assert not following.done(), "what has not changed is not told again"
    following.cancel()


async def facts(*observed: UpstreamsObserved) -> AsyncIterator[UpstreamsObserved]:
    for one in observed:
        yield one


def observed(breaker: int, ended: int = 0, failed: int = 0, id: str = "one") -> UpstreamObservation:
    return UpstreamObservation(deployment_id=id, breaker=breaker, ended=ended, failed=failed)  # type: ignore[arg-type]


async def test_what_its_callers_find_to_fail_stays_unhealthy_whatever_a_probe_says(stage: Stage) -> None:
    await stage.apply(offer(one="a", two="b"))
    await stage.probe(a=[OK], b=[OK])
    health = HealthService(stage.store, ScriptedProber({}))
    assert healths(await stage.hear(health, observed(OPEN, 9, 7), observed(OPEN), observed(OPEN))) == [
        ("one", models_pb2.HEALTH_UNHEALTHY, "7 of 9 requests failed")
    ]
    assert await stage.probe(a=[OK, OK], b=[OK, OK]) == []
    assert await stage.hear(health, observed(HALF_OPEN)) == [], "it is for the probe to say how it is"
    assert healths(await stage.probe(a=[OK], b=[OK])) == [("one", models_pb2.HEALTH_HEALTHY, "answered 200")]


async def test_what_is_given_back_is_at_once_what_the_last_probe_found(stage: Stage) -> None:
    await stage.apply(offer(one="a", two="b"))
    health = HealthService(
        stage.store, ScriptedProber({"http://a/health": [OK], "http://b/health": [REFUSED]})
    )
    with pytest.raises(ExceptionGroup):
        await health.probe(timedelta(0))
    await stage.events()
    opened = (observed(OPEN, 5, 5), observed(OPEN, 5, 5, id="two"))
    assert healths(await stage.hear(health, *opened)) == [
        ("one", models_pb2.HEALTH_UNHEALTHY, "5 of 5 requests failed")
    ]
    again = await stage.hear(health, observed(HALF_OPEN), observed(HALF_OPEN, id="two"), observed(HALF_OPEN))
    assert healths(again) == [("one", models_pb2.HEALTH_HEALTHY, "answered 200")]


async def test_a_breaker_that_closed_gives_a_deployment_back(stage: Stage) -> None:
    await stage.apply(offer(one="a"))
    health = HealthService(stage.store, ScriptedProber({}))
    await stage.hear(health, observed(OPEN, 5, 5), observed(CLOSED))
    assert healths(await stage.probe(a=[OK])) == [("one", models_pb2.HEALTH_HEALTHY, "answered 200")]


async def test_without_a_health_url_its_callers_say_how_a_deployment_is(stage: Stage) -> None:
    await stage.apply(offer(one="", two="b"))
    health = HealthService(stage.store, ScriptedProber({}))
    assert await stage.hear(health, observed(CLOSED)) == [], "nothing was sent there yet"
    heard = await stage.hear(
        health,
        observed(CLOSED, 3),
        observed(CLOSED, 2, 2),
        observed(OPEN, 4, 4),
        observed(HALF_OPEN),
        observed(HALF_OPEN),
        observed(CLOSED, 1),
    )
    assert healths(heard) == [
        ("one", models_pb2.HEALTH_HEALTHY, "3 of 3 requests succeeded"),
        ("one", models_pb2.HEALTH_UNHEALTHY, "6 of 9 requests failed"),
        ("one", models_pb2.HEALTH_UNSPECIFIED, "it is being tried again"),
        ("one", models_pb2.HEALTH_HEALTHY, "4 of 10 requests succeeded"),
    ]


async def test_without_a_health_url_one_of_which_nobody_tells_any_more_is_unknown(stage: Stage) -> None:
    await stage.apply(offer(one="", two="b"))
    health = HealthService(stage.store, ScriptedProber({}))
    await stage.hear(health, observed(OPEN, 5, 5))
    assert healths(await stage.probe(b=[OK])) == [("two", models_pb2.HEALTH_HEALTHY, "answered 200")]
    await stage.store.release("one")  # as the database does by itself when the time is over
    assert healths(await stage.probe(b=[OK])) == [
        ("one", models_pb2.HEALTH_UNSPECIFIED, "nobody has told of it lately")
    ]


async def test_a_deployment_is_held_down_once_a_second_however_many_tell_of_it() -> None:
    @dataclass
    class CountingStore(FakeStore):
        holds: int = 0

        async def hold_down(self, deployment_id: str, seconds: float) -> None:
            self.holds += 1

    store, now = CountingStore(), 100.0
    await CatalogueService(store).apply([offer()])
    health = HealthService(store, ScriptedProber({}), clock=lambda: now)
    await health.follow(told(None))
    crowd = [UpstreamsObserved(observer=f"chat-{n}", upstreams=[observed(OPEN, 5, 5)]) for n in range(9)]
    await health.hear(facts(*crowd))
    assert store.holds == 1
    now += 1
    await health.hear(facts(*crowd))
    assert store.holds == 2


async def test_what_is_told_of_unknown_deployments_is_passed_over(stage: Stage) -> None:
    await stage.apply(offer())
    health = HealthService(stage.store, ScriptedProber({}))
    assert await stage.hear(health, observed(OPEN, 5, 5, id="other")) == []


async def test_a_scope_hides_models(stage: Stage) -> None:
    await stage.apply(offer(), offer("other", two="b"))
    catalogue = CatalogueService(stage.store)
    for scope, visible in ((None, ["acme/llama", "other"]), ({"other", "absent"}, ["other"]), ({"-"}, [])):
        assert [model.card.id for model in await catalogue.models(scope)] == visible
    assert (await catalogue.model("other", {"other"})).card.id == "other"
    with pytest.raises(ModelNotFound):
        await catalogue.model("other", {"acme/llama"})


async def test_all_of_a_model_is_announced(stage: Stage) -> None:
    upstream = Upstream("anthropic", "https://api.example.com", "claude-x", "provider-key", 64)
    deployment = Deployment("remote", "chat", "http://chat:8080", "", 1, 100, upstream)
    card = ModelCard("acme/claude", "acme", ("chat",), 0, (deployment,), ("acme/llama",), 3600, True)
    event = (await stage.apply(Offer(card, {"input_tokens": 1})))[0]
    assert isinstance(event, ModelRegistered)
    assert list(event.model.fallbacks) == ["acme/llama"]
    assert (event.model.cache_seconds, event.model.content_filter) == (3600, True)
    assert event.model.deployments[0].health_url == ""
    assert event.model.deployments[0].upstream == models_pb2.Upstream(
        format="anthropic",
        url="https://api.example.com",
        model="claude-x",
        secret="provider-key",
        max_requests=64,
    )


async def test_healthy_deployments_are_counted_for_each_model() -> None:
    stage = Stage(FakeStore())
    health = HealthService(stage.store, ScriptedProber({}))
    await stage.apply(offer(one="a", two="b"), offer("gone", three="a"))
    await stage.probe(a=[OK], b=[REFUSED])
    await health.follow(told(None))
    assert _counted() == {"acme/llama": 1, "gone": 1}
    await stage.apply(offer(one="a", two="b"))
    await health.follow(told(None))
    assert _counted() == {"acme/llama": 1}


def _counted() -> dict[str, float]:
    return {sample.labels["model"]: sample.value for metric in HEALTHY.collect() for sample in metric.samples}
