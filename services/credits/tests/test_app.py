"""The whole service: HTTP, gRPC, the real database and NATS."""

import asyncio
import hashlib
import hmac
import json
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import httpx
import nats
import pytest
from nats.aio.client import Client

from dozen.credits.v1.credits_events_pb2 import (
    AccountOpened,
    BalanceLow,
    CreditsGranted,
    UsageRated,
    UsageReported,
)
from dozen.credits.v1.credits_pb2 import UsageRecord
from dozen.credits.v1.credits_service_pb2 import (
    BUDGET_PERIOD_MONTH,
    BUDGET_PERIOD_TOTAL,
    AcquireLeaseRequest,
    AdjustRequest,
    Budget,
    GetAccountRequest,
    GrantRequest,
    OpenAccountRequest,
    RefundRequest,
    ReleaseLeaseRequest,
)
from dozen.credits.v1.credits_service_pb2_grpc import CreditsServiceStub
from dozen.models.v1.models_events_pb2 import PriceChanged
from dozen.models.v1.models_pb2 import Price
from dozen_chassis.errors import Status
from dozen_chassis.grpc import RemoteError, open_channel, remote_errors
from dozen_chassis.run import serving
from dozen_chassis.signing import caller_token
from dozen_credits.app import create_app
from dozen_credits.settings import Settings
from dozen_local.nats import NatsServer
from dozen_testing.http import Signer

if TYPE_CHECKING:
    from dozen.credits.v1.credits_service_pb2_grpc import CreditsServiceAsyncStub

pytestmark = pytest.mark.integration

CREDIT = 1_000_000_000


class Service:
    """What clients and other services see of a running credits service."""

    def __init__(self, url: str, signer: Signer, grpc: "CreditsServiceAsyncStub") -> None:
        self.grpc = grpc
        self.url = url
        self._signer = signer

    async def get(self, path: str, *, status: int = 200, **query: Any) -> dict[str, Any]:
        async with httpx.AsyncClient(base_url=self.url) as client:
            answer = await client.get(path, params=query, headers=self._signer.headers(f"GET {path}"))
        assert answer.status_code == status, answer.text
        body: dict[str, Any] = answer.json()
        return body

    async def until_available(self, nano_credits: int) -> dict[str, Any]:
        async with asyncio.timeout(20):
            while True:
                body = await self.get("/v1/credits")
                if body["available_nano_credits"] == nano_credits:
                    return body


@asynccontextmanager
async def credits_service(settings: dict[str, Any], signer: Signer) -> AsyncIterator[Service]:
    async with serving("credits", create_app, Settings(**settings)) as server:
        token = caller_token(bytes.fromhex(settings["grpc_key"]), "gateway")
        async with open_channel(f"127.0.0.1:{server.grpc_port}", token) as channel:
            url = f"http://127.0.0.1:{server.http_port}"
            yield Service(url, signer, CreditsServiceStub(channel))


async def say(client: Client, event: Any) -> None:
    await client.jetstream().publish(
        event.DESCRIPTOR.full_name, event.SerializeToString(), headers={"Nats-Msg-Id": str(uuid.uuid4())}
    )


def usage(request_id: str, price_id: str, **quantities: int) -> UsageRecord:
    record = UsageRecord(
        request_id=request_id,
        account_id="acme",
        key_id="key1",
        model="smollm2",
        deployment_id="smollm2-chat",
        operation="POST /v1/chat/completions",
        price_id=price_id,
        quantities=quantities,
    )
    record.finished_at.GetCurrentTime()
    return record


async def test_usage_is_charged_once_and_can_be_read(
    base_settings: dict[str, Any], signer: Signer, nats_client: Client, nats_server: NatsServer
) -> None:
    await nats_client.jetstream().add_stream(name="MODELS", subjects=["dozen.models.v1.>"])
    async with (
        credits_service(base_settings, signer) as service,
        await nats.connect(nats_server.url("chat"), inbox_prefix=b"_INBOX_chat") as chat,
        await nats.connect(nats_server.url("models"), inbox_prefix=b"_INBOX_models") as models,
    ):
        await service.grpc.OpenAccount(OpenAccountRequest(account_id="acme", name="Acme"))
        grant = GrantRequest(account_id="acme", nano_credits=10 * CREDIT, idempotency_key="welcome")
        await service.grpc.Grant(grant)
        rated = await nats_client.subscribe("dozen.credits.v1.UsageRated")
        await nats_client.flush()

        # The usage comes before its price, and twice.
        records = [
            usage("req_1", "price1", input_tokens=8, output_tokens=1),
            usage("req_2", "price1", input_tokens=1),
        ]
        for _ in range(2):
            await say(chat, UsageReported(records=records))
        price = Price(
            id="price1", model_id="smollm2", nano_credits={"input_tokens": 137_174, "output_tokens": 2}
        )
        await say(models, PriceChanged(price=price))
        spent = 9 * 137_174 + 2
        body = await service.until_available(10 * CREDIT - spent)
        assert body["object"] == "credits"
        assert body["account_id"] == signer.account
        assert body["available"] == "9.998765432"
        assert abs(body["updated_at"] - time.time()) < 60

        event = UsageRated.FromString((await rated.next_msg(timeout=10)).data)
        assert sorted(charge.nano_credits for charge in event.charges) == [137_174, 8 * 137_174 + 2]
        assert [balance.available_nano_credits for balance in event.balances] == [10 * CREDIT - spent]

        # What is reported later still is charged, so all of the above has been taken by then.
        await say(chat, UsageReported(records=[*records, usage("req_3", "price1", output_tokens=1)]))
        await service.until_available(10 * CREDIT - spent - 2)

        sums = await service.get("/v1/usage", bucket_width="all", group_by=["model", "key"])
        (row,) = sums["data"]
        assert (sums["object"], sums["has_more"], sums["first_id"]) == ("list", False, row["id"])
        assert (row["requests"], row["nano_credits"], row["cost"]) == (3, spent + 2, "0.001234570")
        assert row["quantities"] == {"input_tokens": 9, "output_tokens": 2}
        assert (row["model"], row["key_id"], row["operation"]) == ("smollm2", "key1", None)
        assert row["start_time"] <= time.time() - 29 * 86400
        assert row["end_time"] >= time.time()
        chosen: dict[str, Any] = {"bucket_width": "all", "models": ["smollm2", "other"], "key_ids": "key1"}
        assert (await service.get("/v1/usage", **chosen))["data"][0]["requests"] == 3
        for none in ({"models": "other"}, {"key_ids": ["key2", "key3"]}, {"after": row["id"]}):
            assert (await service.get("/v1/usage", **{**chosen, **none}))["data"] == []

        first = await service.get("/v1/usage/requests", limit=2)
        second = await service.get("/v1/usage/requests", limit=2, after=first["last_id"])
        listed = [request["request_id"] for request in [*first["data"], *second["data"]]]
        assert sorted(listed) == ["req_1", "req_2", "req_3"]
        assert (listed[0], first["has_more"], second["has_more"]) == ("req_3", True, False)
        assert first["data"][0]["cost"] == "0.000000002"
        assert first["data"][0]["operation"] == "POST /v1/chat/completions"


async def test_a_leased_request_is_settled_refunded_and_what_is_left_comes_back(
    base_settings: dict[str, Any], signer: Signer, nats_client: Client, nats_server: NatsServer
) -> None:
    await nats_client.jetstream().add_stream(name="MODELS", subjects=["dozen.models.v1.>"])
    settings = {**base_settings, "lease_seconds": 30.0, "low_balance_nano_credits": 100}
    async with (
        credits_service(settings, signer) as service,
        await nats.connect(nats_server.url("chat"), inbox_prefix=b"_INBOX_chat") as chat,
        await nats.connect(nats_server.url("models"), inbox_prefix=b"_INBOX_models") as models,
    ):
        await say(models, PriceChanged(price=Price(id="p", model_id="m", nano_credits={"input_tokens": 1})))
        await service.grpc.OpenAccount(OpenAccountRequest(account_id="acme"))
        expiring = GrantRequest(account_id="acme", nano_credits=100, idempotency_key="g", priority=0)
        expiring.expires_at.FromSeconds(int(time.time()) + 3600)
        await service.grpc.Grant(expiring)
        wish = AcquireLeaseRequest(
            account_id="acme", holder="gateway1", needed_nano_credits=60, request_token="t1"
        )
        for _ in range(2):
            acquired = await service.grpc.AcquireLease(wish)
            assert (acquired.added_nano_credits, acquired.lease.nano_credits) == (60, 60)
            assert acquired.balance.available_nano_credits + acquired.balance.leased_nano_credits == 100
        assert abs(acquired.lease.expires_at.ToSeconds() - time.time() - 30) < 20
        assert (await service.get("/v1/credits"))["available_nano_credits"] == 100

        rated = await nats_client.subscribe("dozen.credits.v1.UsageRated")
        low = await nats_client.subscribe("dozen.credits.v1.BalanceLow")
        await nats_client.flush()
        records = [usage("req_1", "p", input_tokens=70), usage("req_2", "")]
        for record in records:
            record.lease_id = acquired.lease.id
        await say(chat, UsageReported(records=records))
        event = UsageRated.FromString((await rated.next_msg(timeout=10)).data)
        charged = [(one.usage.lease_id, one.nano_credits, one.leased_nano_credits) for one in event.charges]
        assert sorted(charged) == [(acquired.lease.id, 0, 0), (acquired.lease.id, 70, 60)]
        told = BalanceLow.FromString((await low.next_msg(timeout=10)).data)
        assert (told.balance.available_nano_credits, told.limit_nano_credits) == (30, 100)
        released = await service.grpc.ReleaseLease(ReleaseLeaseRequest(lease_id=acquired.lease.id))
        assert released.lease.HasField("closed_at")
        renewal = await service.grpc.AcquireLease(AcquireLeaseRequest(account_id="acme", holder="gateway1"))
        assert not renewal.HasField("lease")

        refund = RefundRequest(request_id="req_1", idempotency_key="r", reason="late", actor="alice")
        assert (await service.grpc.Refund(refund)).nano_credits == 70
        adjust = AdjustRequest(
            account_id="acme", nano_credits=-5, idempotency_key="a", reason="by mistake", actor="alice"
        )
        assert (await service.grpc.Adjust(adjust)).account.available_nano_credits == 95
        listed = await service.get("/v1/usage/requests")
        assert [row["request_id"] for row in listed["data"]] == ["req_1"]


async def test_a_key_is_leased_no_more_than_its_budget(
    base_settings: dict[str, Any], signer: Signer, nats_client: Client
) -> None:
    async with credits_service({**base_settings, "lease_seconds": 2.5}, signer) as service:
        await service.grpc.OpenAccount(OpenAccountRequest(account_id="acme"))
        await service.grpc.Grant(GrantRequest(account_id="acme", nano_credits=100, idempotency_key="g"))
        wish = AcquireLeaseRequest(
            account_id="acme",
            holder="gateway1",
            needed_nano_credits=30,
            request_token="t1",
            budget=Budget(key_id="key1", nano_credits=40, period=BUDGET_PERIOD_MONTH),
        )
        for _ in range(2):
            acquired = await service.grpc.AcquireLease(wish)
            assert (acquired.added_nano_credits, acquired.budget_left_nano_credits) == (30, 10)
            assert (acquired.lease.key_id, acquired.lease.nano_credits) == ("key1", 30)
            assert acquired.lifetime.ToTimedelta().total_seconds() == 2.5
        wish.request_token = "t2"
        assert (await service.grpc.AcquireLease(wish)).added_nano_credits == 0
        wish.ClearField("budget")
        acquired = await service.grpc.AcquireLease(wish)
        assert (acquired.added_nano_credits, acquired.lease.key_id) == (30, "")
        assert not acquired.HasField("budget_left_nano_credits")
        for senseless in (
            Budget(key_id="key1", nano_credits=1),
            Budget(key_id="", nano_credits=1, period=BUDGET_PERIOD_TOTAL),
            Budget(key_id="key1", nano_credits=-1, period=BUDGET_PERIOD_TOTAL),
        ):
            wish.budget.CopyFrom(senseless)
            with pytest.raises(RemoteError) as refused, remote_errors():
                await service.grpc.AcquireLease(wish)
            assert refused.value.code == "invalid_lease"


async def test_the_leases_of_a_lost_holder_come_back_in_time(
    base_settings: dict[str, Any], signer: Signer, nats_client: Client
) -> None:
    settings = {**base_settings, "lease_seconds": 0.3, "longest_request_seconds": 0.6}
    async with credits_service(settings, signer) as service:
        await service.grpc.OpenAccount(OpenAccountRequest(account_id="acme"))
        await service.grpc.Grant(GrantRequest(account_id="acme", nano_credits=100, idempotency_key="g"))
        wish = AcquireLeaseRequest(
            account_id="acme", holder="gateway1", needed_nano_credits=30, request_token="t1"
        )
        acquired = await service.grpc.AcquireLease(wish)
        assert acquired.balance.leased_nano_credits == 30
        started = time.monotonic()
        async with asyncio.timeout(20):
            while (
                await service.grpc.GetAccount(GetAccountRequest(account_id="acme"))
            ).account.leased_nano_credits:
                pass
        assert 0.5 < time.monotonic() - started < 8  # the sweeper keeps up with short settings


async def test_accounts_are_opened_once_and_announced_at_each_start(
    base_settings: dict[str, Any], signer: Signer, nats_client: Client
) -> None:
    opened = await nats_client.subscribe("dozen.credits.v1.AccountOpened")
    granted = await nats_client.subscribe("dozen.credits.v1.CreditsGranted")
    await nats_client.flush()
    async with credits_service(base_settings, signer) as service:
        for _ in range(2):
            answer = await service.grpc.OpenAccount(OpenAccountRequest(account_id="acme", name="Acme"))
            assert (answer.account.id, answer.account.available_nano_credits) == ("acme", 0)
        grant = GrantRequest(account_id="acme", nano_credits=7, idempotency_key="key", reason="welcome")
        for _ in range(2):
            assert (await service.grpc.Grant(grant)).account.available_nano_credits == 7
        found = await service.grpc.GetAccount(GetAccountRequest(account_id="acme"))
        assert (found.account.name, found.account.available_nano_credits) == ("Acme", 7)
        grant.nano_credits = 8
        with pytest.raises(RemoteError) as reused, remote_errors():
            await service.grpc.Grant(grant)
        assert (reused.value.status, reused.value.code) == (Status.ALREADY_EXISTS, "idempotency_key_reused")
        with pytest.raises(RemoteError) as missing, remote_errors():
            await service.grpc.GetAccount(GetAccountRequest(account_id="nobody"))
        assert missing.value.code == "account_not_found"
    async with credits_service(base_settings, signer):
        versions = [0]
        while versions[-1] < 2:  # the first may be told twice, if the account was opened just before
            event = AccountOpened.FromString((await opened.next_msg(timeout=10)).data)
            versions.append(event.balance.version)
    assert versions[1] == 1
    told = CreditsGranted.FromString((await granted.next_msg(timeout=10)).data)
    assert (told.nano_credits, told.reason, told.balance.version) == (7, "welcome", 2)


async def test_what_a_client_asks_for_wrongly_is_refused(
    base_settings: dict[str, Any], signer: Signer, nats_client: Client
) -> None:
    async with credits_service(base_settings, signer) as service:
        answer = await service.get("/v1/credits", status=404)
        assert answer["error"]["code"] == "account_not_found"
        empty = await service.get("/v1/usage")
        assert empty == {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}
        for query in (
            {"bucket_width": "1m"},
            {"group_by": "account"},
            {"limit": 101},
            {"limit": 0},
            {"start_time": -1},
            {"end_time": 10**12},
            {"start_time": 7200, "end_time": 7200},
            {"after": "x"},
            {"after": "1764547200"},
            {"models": ""},
            {"key_ids": "\0"},
            {"models": [f"model{number}" for number in range(101)]},
        ):
            refused = await service.get("/v1/usage", status=400, **query)
            assert refused["error"]["param"].partition(".")[0] == list(query)[-1]
        for after in ("req_none", "\0"):
            refused = await service.get("/v1/usage/requests", status=400, after=after)
            assert refused["error"]["param"] == "after"
        async with httpx.AsyncClient() as client:
            answer = (await client.get(f"{service.url}/v1/credits")).json()
            assert answer["error"]["code"] == "not_admitted"


async def test_a_month_is_billed_and_stated_in_three_formats(
    base_settings: dict[str, Any], signer: Signer, nats_client: Client, nats_server: NatsServer
) -> None:
    await nats_client.jetstream().add_stream(name="MODELS", subjects=["dozen.models.v1.>"])
    async with (
        credits_service(base_settings, signer) as service,
        await nats.connect(nats_server.url("chat"), inbox_prefix=b"_INBOX_chat") as chat,
        await nats.connect(nats_server.url("models"), inbox_prefix=b"_INBOX_models") as models,
        httpx.AsyncClient(base_url=service.url) as client,
    ):

        async def read(path: str, format: str) -> httpx.Response:
            headers = signer.headers(f"GET {path}")
            return await client.get(path, params={"format": format}, headers=headers)

        price = Price(id="p", model_id="smollm2", nano_credits={"input_tokens": 3})
        await say(models, PriceChanged(price=price))
        await service.grpc.OpenAccount(OpenAccountRequest(account_id="acme", name="<Acme>"))
        assert (await service.get("/v1/invoices"))["data"] == []
        await service.grpc.Grant(
            GrantRequest(account_id="acme", nano_credits=CREDIT, idempotency_key="g", reason="welcome")
        )
        await say(chat, UsageReported(records=[usage("req_1", "p", input_tokens=5)]))
        await service.until_available(CREDIT - 15)

        listed = await service.get("/v1/invoices")
        (item,) = listed["data"]
        month = item["id"]
        assert (listed["object"], listed["last_id"], listed["has_more"]) == ("list", month, False)
        path = f"/v1/invoices/{month}"
        invoice = await service.get(path)
        assert invoice == {
            "object": "invoice",
            "id": month,
            "account_id": "acme",
            "status": "open",
            "period_start": invoice["period_start"],
            "period_end": invoice["period_end"],
            "requests": 1,
            "charged": amount(15),
            "written_off": amount(0),
            "refunded": amount(0),
            "paid": amount(15),
            "lines": [
                {
                    "model": "smollm2",
                    "unit": "input_tokens",
                    "price_id": "p",
                    "quantity": 5,
                    "unit_price": amount(3),
                    "amount": amount(15),
                }
            ],
        }
        assert {name: value for name, value in invoice.items() if name != "lines"} == item
        assert invoice["period_start"] <= time.time() < invoice["period_end"]
        statement = await service.get(f"{path}/statement")
        assert (statement["object"], statement["id"]) == ("statement", month)
        assert statement["opening_balance"] == amount(0)
        assert [(one["kind"], one["amount"], one["reason"]) for one in statement["movements"]] == [
            ("grant", amount(CREDIT), "welcome"), ("charge", amount(-15), "")
        ]  # fmt: skip
        assert statement["totals"] == {"grant": amount(CREDIT), "charge": amount(-15)}
        assert statement["closing_balance"] == amount(CREDIT - 15)
        for one in (path, f"{path}/statement"):
            page = await read(one, "html")
            assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
            assert "&lt;Acme&gt;" in page.text
            assert "default-src 'none'" in page.headers["content-security-policy"]
            table = await read(one, "csv")
            assert (table.status_code, table.headers["content-type"]) == (200, "text/csv; charset=utf-8")
            assert "0.000000015" in table.text
            assert page.headers["cache-control"] == table.headers["cache-control"] == "no-store"
            assert (await read(one, "xml")).status_code == 400
        for unknown in ("2020-01", "2999-01", "nonsense"):
            for one in (f"/v1/invoices/{unknown}", f"/v1/invoices/{unknown}/statement"):
                refused = await service.get(one, status=404)
                assert refused["error"]["code"] == "invoice_not_found"
        assert (await service.get("/v1/invoices", status=400, after="x"))["error"]["param"] == "after"
        assert (await service.get("/v1/invoices", after=month))["data"] == []
        assert (await client.get(path)).status_code == 401


async def test_stripe_tops_up_an_account(base_settings: dict[str, Any], signer: Signer) -> None:
    secret = "whsec_test"
    settings = {**base_settings, "stripe_webhook_secret": secret, "stripe_credits": {"usd": "0.01"}}
    session = {
        "id": "cs_1",
        "object": "checkout.session",
        "client_reference_id": "acme",
        "payment_intent": "pi_1",
        "payment_status": "paid",
        "currency": "usd",
        "amount_total": 1000,
    }
    async with credits_service(settings, signer) as service, httpx.AsyncClient() as client:

        async def tell(kind: str, body: dict[str, Any], *, key: str = secret) -> httpx.Response:
            sent = json.dumps({"object": "event", "type": kind, "data": {"object": body}}).encode()
            now = str(int(time.time()))
            fit = hmac.new(key.encode(), f"{now}.".encode() + sent, hashlib.sha256).hexdigest()
            headers = {"stripe-signature": f"t={now},v1={fit}"}
            return await client.post(f"{service.url}/webhooks/stripe", content=sent, headers=headers)

        early = await tell("checkout.session.completed", session)
        assert (early.status_code, early.json()["error"]["code"]) == (422, "unknown_account")
        await service.grpc.OpenAccount(OpenAccountRequest(account_id="acme"))
        for _ in range(2):
            answer = await tell("checkout.session.completed", session)
            assert (answer.status_code, answer.json()) == (200, {"received": True})
        assert (await service.get("/v1/credits"))["available"] == "10.000000000"
        charge = {"id": "ch_1", "payment_intent": "pi_1", "amount": 1000, "amount_refunded": 250}
        assert (await tell("charge.refunded", charge)).status_code == 200
        assert (await service.get("/v1/credits"))["available"] == "7.500000000"

        assert (await tell("customer.created", {"id": "cus_1"})).status_code == 200
        for refused, status, code in (
            (await tell("charge.refunded", charge, key="another"), 400, "invalid_signature"),
            (await tell("charge.refunded", {}), 400, "invalid_event"),
            (await tell("customer.created", {"name": "n" * 256 * 1024}), 413, "request_too_large"),
        ):
            assert (refused.status_code, refused.json()["error"]["code"]) == (status, code)
        assert (await service.get("/v1/credits"))["available"] == "7.500000000"


async def test_without_a_secret_there_is_no_webhook(base_settings: dict[str, Any], signer: Signer) -> None:
    async with credits_service(base_settings, signer) as service, httpx.AsyncClient() as client:
        answer = await client.post(f"{service.url}/webhooks/stripe", content=b"{}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "unknown_url")


def amount(nano_credits: int) -> dict[str, Any]:
    sign, (whole, fraction) = "-" * (nano_credits < 0), divmod(abs(nano_credits), CREDIT)
    return {"credits": f"{sign}{whole}.{fraction:09}", "nano_credits": nano_credits}
