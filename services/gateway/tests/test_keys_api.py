"""`/v1/keys` for account owners, and the administration of keys by gRPC, on a real database."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from dozen.gateway.v1 import gateway_service_pb2, gateway_service_pb2_grpc
from dozen.gateway.v1.gateway_pb2 import (
    KEY_BUDGET_PERIOD_MONTH,
    KEY_BUDGET_PERIOD_TOTAL,
    KeyBudget,
    RateLimits,
)
from dozen.gateway.v1.gateway_service_pb2 import (
    CreateApiKeyRequest,
    KeyTerms,
    ListApiKeysRequest,
    RevokeApiKeyRequest,
    RotateApiKeyRequest,
    UpdateApiKeyRequest,
)
from dozen.gateway.v1.gateway_service_pb2_grpc import GatewayServiceStub
from dozen_chassis.errors import ServiceError
from dozen_chassis.grpc import GrpcService, remote_errors
from dozen_chassis.http import create_http
from dozen_chassis.postgres import Database
from dozen_gateway import routes
from dozen_gateway.domain import key_terms
from dozen_gateway.domain.keys import hash_secret, is_secret_of, read_key
from dozen_gateway.domain.state import State
from dozen_gateway.repository.keys import KeysRepository
from dozen_gateway.repository.limits import LimitsRepository
from dozen_gateway.service.account_limits import AccountLimitsService
from dozen_gateway.service.decisions import DecisionService
from dozen_gateway.service.keys import KeyService
from dozen_gateway.servicer import GatewayServicer
from dozen_testing.grpc import channel_to
from dozen_testing.http import Signer, serve

if TYPE_CHECKING:
    from dozen.gateway.v1.gateway_service_pb2_grpc import GatewayServiceAsyncStub  # in the stub file only

pytestmark = pytest.mark.integration

DAY = 24 * 3600
TIMEOUT = aiohttp.ClientTimeout(total=30)
PLAIN: dict[str, Any] = {
    "expires_at": None,
    "labels": {},
    "endpoints": [],
    "models": [],
    "limits": None,
    "budget": None,
    "previous_secret_expires_at": None,
}


@dataclass
class Answer:
    status: int
    body: Any
    headers: dict[str, str]

    @property
    def error(self) -> tuple[int, str, str | None]:
        error = self.body["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert error["type"] == "invalid_request_error"
        return self.status, error["code"], error["param"]


@dataclass
class Gateway:
    """The key administration, called by HTTP with a key of the account `acme`, and by gRPC."""

    client: aiohttp.ClientSession
    url: str
    keys: KeyService
    state: State
    signer: Signer
    stub: "GatewayServiceAsyncStub"
    admin: str
    """Id of the key that calls."""

    async def call(self, method: str, path: str = "", body: Any = None, **headers: str) -> Answer:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        signed = self.signer.headers(f"{method} /v1/keys{path.partition('?')[0]}")
        response = await self.client.request(
            method, f"{self.url}/v1/keys{path}", json=body, headers=signed | sent
        )
        return Answer(response.status, await response.json(), dict(response.headers))

    def accepts(self, text: str) -> bool:
        parts = read_key(text)
        assert parts is not None
        return is_secret_of(self.state.keys[parts.id], parts, time.time())


@pytest.fixture
async def gateway(
    database: Database, signer: Signer, decisions_on: Callable[[State, str, bytes], DecisionService]
) -> AsyncIterator[Gateway]:
    async with AsyncExitStack() as stack:
        state = State()
        keys = KeyService(KeysRepository(database), state, b"server key")
        admin = (await keys.create("acme", key_terms.KeyTerms("admin"))).key.id
        app = create_http("gateway", [routes.router(keys)], admission_key=signer.key)
        url = await stack.enter_async_context(serve(app))
        client = await stack.enter_async_context(aiohttp.ClientSession(timeout=TIMEOUT))
        servicer = GatewayServicer(
            decisions_on(state, "http://none", b"master"),
            keys,
            AccountLimitsService(LimitsRepository(database)),
        )
        service = GrpcService(
            gateway_service_pb2.DESCRIPTOR,
            gateway_service_pb2_grpc.add_GatewayServiceServicer_to_server,
            servicer,
        )
        stub = GatewayServiceStub(await stack.enter_async_context(channel_to(service)))
        yield Gateway(client, url, keys, state, replace(signer, api_key=admin), stub, admin)


async def test_a_key_is_made_with_its_terms(gateway: Gateway) -> None:
    expires_at = int(time.time()) + DAY
    terms = {
        "name": "batch",
        "labels": {"team": "search"},
        "endpoints": ["/v1/jobs", "/v1/files"],
        "models": ["acme/smol"],
        "limits": {"requests_per_minute": 60, "concurrent_requests": 2},
        "budget": {"credits": "10.5", "period": "month"},
        "expires_at": expires_at,
    }
    created = (await gateway.call("POST", body=terms)).body
    key_id, value, created_at = created.pop("id"), created.pop("value"), created.pop("created_at")
    assert abs(created_at - time.time()) < 60
    assert created == {
        **terms,
        "object": "api_key",
        "endpoints": ["/v1/files", "/v1/jobs"],
        "limits": {"requests_per_minute": 60, "tokens_per_minute": None, "concurrent_requests": 2},
        "budget": {"credits": "10.500000000", "period": "month"},
        "previous_secret_expires_at": None,
    }
    assert value.startswith(f"dz-acme-{key_id}-")
    assert gateway.accepts(value)
    shown = {"id": key_id, "created_at": created_at, **created}
    assert (await gateway.call("GET", f"/{key_id}")).body == shown
    page = (await gateway.call("GET", "?limit=1")).body
    assert page == {
        "object": "list", "data": [shown], "first_id": key_id, "last_id": key_id, "has_more": True,
    }  # fmt: skip


async def test_an_update_changes_what_the_body_names_and_null_clears(gateway: Gateway) -> None:
    terms = {"name": "batch", "labels": {"a": "b"}, "models": ["smol"], "limits": {"tokens_per_minute": 5}}
    created = (await gateway.call("POST", body=terms)).body
    del created["value"]
    path = f"/{created['id']}"
    changed = (await gateway.call("POST", path, {"name": "night", "labels": None, "limits": {}})).body
    assert changed == created | {"name": "night", "labels": {}, "limits": None}
    assert (await gateway.call("POST", path, {})).body == changed
    budget = {"credits": "1", "period": "total"}
    changed = (await gateway.call("POST", path, {"models": None, "budget": budget})).body
    expected = {"models": [], "budget": {"credits": "1.000000000", "period": "total"}}
    assert changed == created | {"name": "night", "labels": {}, "limits": None} | expected
    assert (await gateway.call("GET", path)).body == changed


async def test_a_rotated_key_has_two_secrets(gateway: Gateway) -> None:
    created = (await gateway.call("POST", body={"name": "laptop"})).body
    path = f"/{created['id']}/rotate"
    rotated = (await gateway.call("POST", path)).body
    assert rotated["value"] != created["value"]
    assert abs(rotated.pop("previous_secret_expires_at") - time.time() - 3600) < 60
    assert rotated | {"value": ""} | PLAIN == created | {"value": ""}
    assert gateway.accepts(created["value"])
    assert gateway.accepts(rotated["value"])
    again = (await gateway.call("POST", path, {"grace_seconds": 0})).body
    assert again["previous_secret_expires_at"] is None
    assert [gateway.accepts(one["value"]) for one in (created, rotated, again)] == [False, False, True]


async def test_a_deleted_key_is_gone(gateway: Gateway) -> None:
    created = (await gateway.call("POST", body={"name": "laptop"})).body
    path = f"/{created['id']}"
    deleted = await gateway.call("DELETE", path)
    assert deleted.body == {"id": created["id"], "object": "api_key", "deleted": True}
    for method, place, body in (("GET", path, None), ("POST", path, {}), ("POST", f"{path}/rotate", None)):
        assert (await gateway.call(method, place, body)).error == (404, "key_not_found", None)
    assert [key["id"] for key in (await gateway.call("GET")).body["data"]] == [gateway.admin]


async def test_a_repeated_request_gets_the_same_answer(gateway: Gateway) -> None:
    body = {"name": "laptop", "budget": {"credits": "2.50", "period": "total"}}
    first = await gateway.call("POST", body=body, idempotency_key="once")
    again = await gateway.call("POST", body=body, idempotency_key="once")
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    assert (again.status, again.body) == (first.status, first.body)
    other = await gateway.call("POST", body={"name": "desk"}, idempotency_key="once")
    assert other.error == (400, "idempotency_key_reused", None)
    path = f"/{first.body['id']}/rotate"
    rotated, repeated = [await gateway.call("POST", path, idempotency_key="turn") for _ in range(2)]
    assert repeated.headers["idempotent-replayed"] == "true"
    assert repeated.body == rotated.body
    same = await gateway.call("POST", path, {"grace_seconds": 3600}, idempotency_key="turn")
    assert same.body == rotated.body
    other = await gateway.call("POST", path, {"grace_seconds": 1}, idempotency_key="turn")
    assert other.error == (400, "idempotency_key_reused", None)
    assert gateway.accepts(first.body["value"])
    refused = await gateway.call("POST", body=body, idempotency_key="k" * 256)
    assert refused.error == (400, "invalid_idempotency_key", None)


async def test_requests_at_once_under_one_idempotency_key_make_one_key(gateway: Gateway) -> None:
    answers = await asyncio.gather(
        *[gateway.call("POST", body={"name": "laptop"}, idempotency_key="once") for _ in range(20)]
    )
    assert {answer.body["value"] for answer in answers} == {answers[0].body["value"]}
    assert sum("idempotent-replayed" not in answer.headers for answer in answers) == 1
    assert len((await gateway.call("GET")).body["data"]) == 2


@pytest.mark.parametrize(
    "restriction",
    [
        {"endpoints": ["/v1/keys"]},
        {"models": ["smol"]},
        {"limits": {"requests_per_minute": 100}},
        {"budget": {"credits": "1", "period": "total"}},
        {"expires_at": int(time.time()) + DAY},
    ],
    ids=lambda restriction: next(iter(restriction)),
)
async def test_a_restricted_key_changes_no_keys_but_sees_them(
    gateway: Gateway, restriction: dict[str, Any]
) -> None:
    created = (await gateway.call("POST", body={"name": "weak", **restriction})).body
    gateway.signer = replace(gateway.signer, api_key=created["id"])
    path = f"/{gateway.admin}"
    for method, place, body in (
        ("POST", "", {"name": "free"}),
        ("POST", "", {"not": "valid"}),
        ("POST", f"/{created['id']}", {next(iter(restriction)): None}),
        ("POST", f"/{created['id']}/rotate", None),
        ("DELETE", path, None),
    ):
        answer = await gateway.call(method, place, body)
        assert answer.error == (403, "insufficient_permissions", None)
    assert len((await gateway.call("GET")).body["data"]) == 2
    assert (await gateway.call("GET", path)).body["id"] == gateway.admin


async def test_a_key_that_is_revoked_since_it_was_admitted_makes_no_other(gateway: Gateway) -> None:
    await gateway.keys.revoke("acme", gateway.admin)
    answer = await gateway.call("POST", body={"name": "another"})
    assert answer.error == (403, "insufficient_permissions", None)


INVALID: list[tuple[dict[str, Any], str]] = [
    ({}, "name"),
    ({"name": ""}, "name"),
    ({"name": None}, "name"),
    ({"name": "n" * 101}, "name"),
    ({"name": "a\0b"}, "name"),
    ({"name": "n", "budgets": {}}, "budgets"),
    ({"name": "n", "labels": {"a": 1}}, "labels.a"),
    ({"name": "n", "labels": {"k" * 65: ""}}, "labels"),
    ({"name": "n", "endpoints": "/v1/files"}, "endpoints"),
    ({"name": "n", "endpoints": ["/v1/nothing"]}, "endpoints"),
    ({"name": "n", "models": [""]}, "models"),
    ({"name": "n", "limits": {"requests_per_minute": 0}}, "limits"),
    ({"name": "n", "limits": {"requests_per_minute": "5"}}, "limits.requests_per_minute"),
    ({"name": "n", "limits": {"requests_per_minute": True}}, "limits.requests_per_minute"),
    ({"name": "n", "limits": {"requests_per_second": 1}}, "limits.requests_per_second"),
    ({"name": "n", "budget": {"credits": 10.5, "period": "month"}}, "budget.credits"),
    ({"name": "n", "budget": {"credits": "-1", "period": "month"}}, "budget.credits"),
    ({"name": "n", "budget": {"credits": "0", "period": "month"}}, "budget"),
    ({"name": "n", "budget": {"credits": "1", "period": "week"}}, "budget.period"),
    ({"name": "n", "budget": {"credits": "1"}}, "budget.period"),
    ({"name": "n", "expires_at": 1_000_000}, "expires_at"),
    ({"name": "n", "expires_at": 10**13}, "expires_at"),
    ({"name": "n", "expires_at": "tomorrow"}, "expires_at"),
]


async def test_a_body_that_is_not_valid_is_refused(gateway: Gateway) -> None:
    for body, param in INVALID:
        created = await gateway.call("POST", body=body)
        assert created.error == (400, "invalid_request", param), body
        changes = {name: value for name, value in body.items() if value != "n"}
        if changes:
            changed = await gateway.call("POST", f"/{gateway.admin}", changes)
            assert changed.error == (400, "invalid_request", param), changes


async def test_a_page_that_cannot_be_is_refused(gateway: Gateway) -> None:
    for query, param in (
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("after=%00", "after"),
        ("order=up", "order"),
    ):
        assert (await gateway.call("GET", f"?{query}")).error == (400, "invalid_request", param)


async def test_a_grace_that_is_not_valid_is_refused(gateway: Gateway) -> None:
    for grace in (-1, 30 * DAY + 1, "60", 1.5, None):
        answer = await gateway.call("POST", f"/{gateway.admin}/rotate", {"grace_seconds": grace})
        assert answer.error == (400, "invalid_request", "grace_seconds"), grace


async def test_keys_are_administered_by_grpc(gateway: Gateway) -> None:
    terms = KeyTerms(
        name="batch",
        labels={"team": "search"},
        endpoints=["/v1/files"],
        models=["smol"],
        limits=RateLimits(tokens_per_minute=1000),
        budget=KeyBudget(nano_credits=5, period=KEY_BUDGET_PERIOD_TOTAL),
    )
    terms.expires_at.FromSeconds(int(time.time()) + DAY)
    stub = gateway.stub
    request = CreateApiKeyRequest(account_id="acme", terms=terms, idempotency_key="once")
    created = await stub.CreateApiKey(request)
    key = created.api_key
    assert (key.name, dict(key.labels), list(key.endpoints)) == ("batch", {"team": "search"}, ["/v1/files"])
    assert (list(key.models), key.limits, key.budget) == (["smol"], terms.limits, terms.budget)
    assert key.expires_at == terms.expires_at
    assert key.version == 1
    assert gateway.accepts(created.secret)
    assert await stub.CreateApiKey(request) == created

    less = KeyTerms(name="night", budget=KeyBudget(nano_credits=7, period=KEY_BUDGET_PERIOD_MONTH))
    updated = (
        await stub.UpdateApiKey(UpdateApiKeyRequest(account_id="acme", key_id=key.id, terms=less))
    ).api_key
    assert (updated.name, updated.budget, updated.version) == ("night", less.budget, 2)
    cleared = ("labels", "endpoints", "models", "limits", "expires_at")
    assert not {field.name for field, _ in updated.ListFields()}.intersection(cleared)

    rotate = RotateApiKeyRequest(account_id="acme", key_id=key.id, idempotency_key="turn")
    rotated = await stub.RotateApiKey(rotate)
    assert rotated.api_key.version == 3
    assert abs(rotated.api_key.previous_secret_expires_at.seconds - time.time() - 3600) < 60
    assert gateway.accepts(rotated.secret)
    assert gateway.accepts(created.secret)
    assert await stub.RotateApiKey(rotate) == rotated
    rotate = RotateApiKeyRequest(account_id="acme", key_id=key.id)
    rotate.grace.FromSeconds(0)
    latest = await stub.RotateApiKey(rotate)
    assert not latest.api_key.HasField("previous_secret_expires_at")
    assert not gateway.accepts(rotated.secret)

    revoked = (await stub.RevokeApiKey(RevokeApiKeyRequest(account_id="acme", key_id=key.id))).api_key
    assert revoked.HasField("revoked_at")
    listed = (await stub.ListApiKeys(ListApiKeysRequest(account_id="acme"))).api_keys
    assert [one.id for one in listed] == [key.id, gateway.admin]
    assert listed[0] == revoked


async def test_a_key_by_its_name_alone_is_made_by_grpc(gateway: Gateway) -> None:
    created = await gateway.stub.CreateApiKey(CreateApiKeyRequest(account_id="acme", name="laptop"))
    assert created.api_key.name == "laptop"
    parts = read_key(created.secret)
    assert parts is not None
    assert gateway.state.keys[parts.id].secret_sha256 == hash_secret(parts.secret)


async def test_terms_that_are_not_valid_are_refused_by_grpc(gateway: Gateway) -> None:
    far = KeyTerms(name="n")
    far.expires_at.seconds = 10**12
    for terms in (
        KeyTerms(),
        KeyTerms(name="n", limits=RateLimits(requests_per_minute=0)),
        KeyTerms(name="n", budget=KeyBudget(nano_credits=1)),
        KeyTerms(name="n", budget=KeyBudget(period=KEY_BUDGET_PERIOD_MONTH)),
        KeyTerms(name="n", endpoints=["/v1"]),
        far,
    ):
        create = CreateApiKeyRequest(account_id="acme", terms=terms)
        update = UpdateApiKeyRequest(account_id="acme", key_id=gateway.admin, terms=terms)
        for attempt in (gateway.stub.CreateApiKey(create), gateway.stub.UpdateApiKey(update)):
            with pytest.raises(ServiceError) as refused, remote_errors():
                await attempt
            assert refused.value.code == "invalid_request"
