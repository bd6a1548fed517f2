"""The catalogue's deployments in a service's database, and in every replica."""

import asyncio
from contextlib import aclosing
from datetime import UTC, datetime, timedelta

import pytest

from dozen.models.v1.models_events_pb2 import ModelRegistered
from dozen.models.v1.models_pb2 import Deployment as Announced
from dozen.models.v1.models_pb2 import Model, Upstream
from dozen_chassis.admission import Admission
from dozen_chassis.events import Delivery
from dozen_chassis.postgres import Database
from dozen_chassis.tasks import end
from dozen_inference.catalogue import CHANNEL, Catalogue, DeploymentRepository, on_model_registered
from dozen_inference.http1 import HttpClient
from dozen_inference.places import Deployment, Places
from dozen_testing.conditions import eventually

pytestmark = pytest.mark.integration

NOW = datetime(2026, 11, 25, tzinfo=UTC)
NEAR = Announced(id="near", service="chat", address="http://chat:8080/")
FAR = Announced(
    id="far",
    service="chat",
    address="http://chat:8080",
    upstream=Upstream(
        format="anthropic", url="https://far.test/", model="claude-9", secret="key", max_requests=3
    ),
)
OTHER = Announced(id="other", service="completion", address="http://completion:8080")


def registered(*deployments: Announced, model: str = "small") -> ModelRegistered:
    return ModelRegistered(model=Model(id=model, deployments=deployments))


@pytest.fixture
def service_package() -> str:
    return "dozen_chat"  # whose database it is


async def tell(catalogue: Catalogue, event: ModelRegistered, *, at: datetime = NOW) -> None:
    await on_model_registered(event, Delivery("event-1", 1, at), catalogue)


async def known(database: Database) -> dict[str, Deployment]:
    return await DeploymentRepository(database).deployments()


@pytest.fixture
async def catalogue(database: Database) -> Catalogue:
    async with HttpClient(connect_seconds=1) as client:
        places = Places(client, "http://127.0.0.1:9", frozenset(), most_requests=1, idle_seconds=1)
    return Catalogue("chat", DeploymentRepository(database), places)


async def test_the_deployments_of_this_service_are_kept(catalogue: Catalogue, database: Database) -> None:
    await tell(catalogue, registered(NEAR, FAR, OTHER))
    assert await known(database) == {
        "near": Deployment("near", "small", "http://chat:8080"),
        "far": Deployment(
            "far", "small", "http://chat:8080", "anthropic", "https://far.test", "claude-9", "key", 3
        ),
    }


async def test_a_registration_replaces_all_that_was_known_of_the_model(
    catalogue: Catalogue, database: Database
) -> None:
    await tell(catalogue, registered(NEAR, FAR))
    elsewhere = Announced(id="elsewhere", service="chat", address="http://b:1")
    await tell(catalogue, registered(elsewhere, model="big"))
    moved = Announced(id="near", service="chat", address="http://a:1")
    await tell(catalogue, registered(moved), at=NOW + timedelta(seconds=1))
    assert {name: one.address for name, one in (await known(database)).items()} == {
        "near": "http://a:1",
        "elsewhere": "http://b:1",
    }
    await tell(catalogue, registered(), at=NOW + timedelta(seconds=2))
    assert set(await known(database)) == {"elsewhere"}


async def test_the_later_registration_holds_whatever_comes_first(
    catalogue: Catalogue, database: Database
) -> None:
    await tell(catalogue, registered(FAR), at=NOW + timedelta(seconds=1))
    await tell(catalogue, registered(NEAR))
    await tell(catalogue, registered(FAR), at=NOW + timedelta(seconds=1))
    assert set(await known(database)) == {"far"}


async def test_every_replica_follows(database: Database, admission: Admission) -> None:
    async with HttpClient(connect_seconds=1) as client:
        replicas = [
            Places(client, "http://127.0.0.1:9", frozenset({"-"}), most_requests=1, idle_seconds=1)
            for _ in range(2)
        ]
        catalogues = [Catalogue("chat", DeploymentRepository(database), places) for places in replicas]
        await tell(catalogues[0], registered(NEAR))
        following = [
            asyncio.ensure_future(catalogue.follow(database.listen(CHANNEL))) for catalogue in catalogues
        ]

        async def all_know(deployment: str) -> bool:
            links = [places.link(deployment, admission) for places in replicas]
            return all(link is not None and link.upstream is not replicas[0].own for link in links) and all(
                deployment in places._known for places in replicas
            )

        try:
            await eventually(lambda: all_know("near"))
            await tell(catalogues[1], registered(FAR, model="big"))
            await eventually(lambda: all_know("far"))
        finally:
            await end(*following)


async def test_a_notification_tells_which_model_has_changed(catalogue: Catalogue, database: Database) -> None:
    async with aclosing(database.listen(CHANNEL)) as changes, asyncio.timeout(10):
        assert await anext(changes) is None
        await tell(catalogue, registered(NEAR))
        assert await anext(changes) == "small"
