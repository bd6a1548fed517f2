"""The whole service: real events of other services, seen on the pages with a browser's cookies."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import nats
import pytest
from google.protobuf.message import Message
from nats.aio.client import Client

from dozen.admin.v1.admin_events_pb2 import AdminActionTaken
from dozen.admin.v1.admin_service_pb2 import OverviewRequest
from dozen.admin.v1.admin_service_pb2_grpc import AdminServiceStub
from dozen.credits.v1.credits_events_pb2 import (
    AccountOpened,
    BalanceChanged,
    BalanceExhausted,
    BalanceLow,
    CreditsGranted,
    UsageRated,
)
from dozen.credits.v1.credits_pb2 import Balance
from dozen.gateway.v1.gateway_events_pb2 import ApiKeyCreated, ApiKeyRevoked, ApiKeyUpdated
from dozen.gateway.v1.gateway_pb2 import KEY_BUDGET_PERIOD_MONTH
from dozen.jobs.v1.jobs_events_pb2 import TaskFinished
from dozen.jobs.v1.jobs_pb2 import TASK_STATE_FAILED
from dozen.models.v1.models_events_pb2 import DeploymentHealthChanged, ModelRegistered, PriceChanged
from dozen.models.v1.models_pb2 import HEALTH_UNHEALTHY
from dozen_admin.app import create_app
from dozen_admin.settings import Settings
from dozen_chassis.events import Envelope
from dozen_chassis.grpc import open_channel
from dozen_chassis.postgres import Database
from dozen_chassis.run import serving
from dozen_chassis.signing import caller_token
from dozen_local.nats import NatsServer

pytestmark = pytest.mark.integration

PASSWORD = "correct horse battery"
PAGES = ["/overview", "/accounts", "/accounts/acme", "/usage", "/models", "/jobs", "/audit"]


@pytest.fixture
def settings(base_settings: dict[str, Any]) -> Settings:
    nowhere = {"chat": "http://127.0.0.1:9", "audio": "http://127.0.0.1:9"}
    return Settings(**base_settings, admin_password=PASSWORD, service_addresses=nowhere)


@pytest.fixture
async def browser(settings: Settings, nats_client: Client) -> AsyncIterator[httpx.AsyncClient]:
    async with (
        serving("admin", create_app, settings) as server,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.http_port}") as client,
    ):
        yield client


async def sign_in(browser: httpx.AsyncClient, password: str = PASSWORD, at: str = "/login") -> httpx.Response:
    form = await browser.get(at)
    return await browser.post(at, data={"user": "admin", "password": password, "form": form_token(form.text)})


def form_token(page: str) -> str:
    found = re.search(r'name="form" value="(\w+)"', page)
    assert found, page
    return found[1]


async def seen(browser: httpx.AsyncClient, path: str, *texts: str) -> str:
    """Read a page until it shows all of some texts."""
    page = ""
    try:
        async with asyncio.timeout(20):
            while not all(text in page for text in texts):
                page = (await browser.get(path)).text
    except TimeoutError:
        pytest.fail(f"{path} does not show {texts}: {page}")
    return page


@asynccontextmanager
async def publisher(server: NatsServer, owner: str) -> AsyncIterator[Callable[..., Any]]:
    """Publish events as their owner does, with the owner's own rights."""
    client = await nats.connect(server.url(owner), inbox_prefix=f"_INBOX_{owner}".encode())
    jetstream = client.jetstream()
    await jetstream.add_stream(name=owner.upper(), subjects=[f"dozen.{owner}.v1.>"])

    async def publish(event: Message) -> None:
        envelope = Envelope.seal(event)
        await jetstream.publish(envelope.subject, envelope.payload, headers=dict(envelope.headers))

    yield publish
    await client.close()


async def tell_of_an_account(server: NatsServer, name: str = "Acme") -> None:
    opened = AccountOpened()
    opened.account.id, opened.account.name = "acme", name
    opened.account.created_at.GetCurrentTime()
    opened.balance.CopyFrom(Balance(account_id="acme", available_nano_credits=0, version=1))
    granted = CreditsGranted(balance=Balance(account_id="acme", available_nano_credits=20 * 10**9, version=2))
    rated = UsageRated(
        balances=[
            Balance(
                account_id="acme", available_nano_credits=19_999_999_600, leased_nano_credits=100, version=3
            )
        ]
    )
    charge = rated.charges.add(nano_credits=300)
    usage = charge.usage
    usage.request_id, usage.account_id, usage.key_id, usage.model = "req_1", "acme", "key1", "smol"
    usage.operation = "POST /v1/chat/completions"
    usage.quantities["input_tokens"], usage.quantities["output_tokens"] = 1200, 34
    usage.finished_at.GetCurrentTime()
    async with publisher(server, "credits") as publish:
        for event in (opened, granted, rated):
            await publish(event)


async def test_what_services_publish_is_seen_on_the_pages(
    browser: httpx.AsyncClient, nats_server: NatsServer
) -> None:
    await tell_of_an_account(nats_server)
    key = ApiKeyCreated()
    key.api_key.id, key.api_key.account_id, key.api_key.name = "key1", "acme", "laptop"
    old = ApiKeyRevoked()
    old.api_key.id, old.api_key.account_id, old.api_key.name = "key0", "acme", "old phone"
    async with publisher(nats_server, "gateway") as publish:
        await publish(key)
        await publish(old)
    model = ModelRegistered()
    model.model.id, model.model.context_length = "smol", 2048
    model.model.deployments.add(id="smol-chat", service="chat", address="http://chat:8080", priority=1)
    price = PriceChanged()
    price.price.id, price.price.model_id, price.price.nano_credits["input_tokens"] = "p1", "smol", 150
    health = DeploymentHealthChanged(
        deployment_id="smol-chat", model_id="smol", health=HEALTH_UNHEALTHY, reason="connection refused"
    )
    async with publisher(nats_server, "models") as publish:
        for event in (model, price, health):
            await publish(event)
    task = TaskFinished(task_id="task-1", account_id="acme", type="chat.completions", state=TASK_STATE_FAILED)
    task.error.message = "no such model"
    async with publisher(nats_server, "jobs") as publish:
        await publish(task)

    await sign_in(browser)
    await seen(browser, "/accounts", "Acme", "19.9999997", "0.0000003")
    await seen(
        browser, "/accounts/acme", "laptop", "active", "old phone", "revoked", "1,200 input tokens, 34 output"
    )
    await seen(browser, "/usage", "POST /v1/chat/completions", "0.0000003", "/accounts/acme")
    assert "req_1" in await seen(browser, "/usage?account=acme", "smol")
    assert "req_1" not in await seen(browser, "/usage?account=other", "No charges of other")
    await seen(browser, "/models", "smol", "0.15", "per million input tokens", "unhealthy", "2,048")
    await seen(browser, "/jobs", "task-1", "failed", "no such model")
    await seen(
        browser, "/overview", "1,234", "0.0000003", "connection refused", "Unhealthy", "Down", "chat, audio"
    )
    answer = (await browser.get("/admin/api/overview")).json()
    assert answer["last_hour"] == {"requests": 1, "tokens": 1234, "nano_credits": 300}
    assert answer["deployments"][0]["health"] == "unhealthy"
    assert [one["status"] for one in answer["services"]] == ["down", "down"]


async def test_balances_and_what_keys_may_do_are_seen(
    browser: httpx.AsyncClient, nats_server: NatsServer
) -> None:
    def balance(available: int, leased: int, version: int) -> Balance:
        return Balance(
            account_id="acme",
            available_nano_credits=available,
            leased_nano_credits=leased,
            version=version,
        )

    await sign_in(browser)
    changed = BalanceChanged(balance=balance(10**9, 250_000_000, 4), nano_credits=-1)
    low = BalanceLow(balance=balance(400_000_000, 200_000_000, 5), limit_nano_credits=10**9)
    async with publisher(nats_server, "credits") as publish:
        await publish(changed)
        await seen(browser, "/accounts", "1.25")
        page = await seen(browser, "/accounts/acme", "1.00 <", "0.25", "1.25")
        assert "badge low" not in page
        assert "run out" not in (await browser.get("/overview")).text
        await publish(low)
        for path in ("/overview", "/accounts", "/accounts/acme"):
            await seen(browser, path, "badge low", "0.60")
        await seen(browser, "/accounts/acme", "0.40", "0.20")
        await publish(BalanceExhausted(balance=balance(0, 0, 6)))
        await seen(browser, "/overview", "badge exhausted")
        (account,) = (await browser.get("/admin/api/overview")).json()["low_accounts"]
        assert (account["id"], account["balance"], account["alert"]) == ("acme", 0, "exhausted")
        await publish(CreditsGranted(balance=balance(10**9, 0, 7)))
        async with asyncio.timeout(20):
            while "badge exhausted" in (page := (await browser.get("/overview")).text):
                pass
        assert "run out" not in page

    created = ApiKeyCreated()
    created.api_key.id, created.api_key.account_id, created.api_key.name = "key1", "acme", "laptop"
    updated = ApiKeyUpdated(api_key=created.api_key)
    key = updated.api_key
    key.labels["team"] = "search"
    key.endpoints.append("/v1/embeddings")
    key.models.append("smol")
    key.limits.tokens_per_minute = 10_000
    key.budget.nano_credits, key.budget.period = 5 * 10**9, KEY_BUDGET_PERIOD_MONTH
    key.expires_at.FromJsonString("2020-01-02T03:04:05Z")
    async with publisher(nats_server, "gateway") as publish:
        await publish(created)
        await seen(browser, "/accounts/acme", "laptop", "badge active", "all endpoints", "all models")
        await publish(updated)
        await seen(
            browser, "/accounts/acme", "team: search", "/v1/embeddings", "smol", "10,000 tokens a minute",
            "5.00 a month", "badge expired", "2020-01-02 03:04:05",
        )  # fmt: skip


async def test_the_overview_over_grpc(
    settings: Settings, nats_client: Client, nats_server: NatsServer
) -> None:
    await tell_of_an_account(nats_server)
    async with serving("admin", create_app, settings) as server:
        token = caller_token(bytes.fromhex(settings.grpc_key.get_secret_value()), "test")
        async with open_channel(f"127.0.0.1:{server.grpc_port}", token) as channel:
            stub = AdminServiceStub(channel)
            async with asyncio.timeout(20):
                overview = await stub.Overview(OverviewRequest())
                while not overview.last_hour.requests or not overview.accounts[0].name:
                    overview = await stub.Overview(OverviewRequest())
    (account,) = overview.accounts
    assert (account.account_id, account.charged_nano_credits, account.requests) == ("acme", 300, 1)
    assert (account.available_nano_credits, account.leased_nano_credits) == (19_999_999_600, 100)
    assert (account.alert, len(overview.low_accounts)) == ("", 0)
    assert (overview.account_count, overview.last_day.tokens) == (1, 1234)
    assert [one.service for one in overview.services] == ["chat", "audio"]


async def test_nothing_is_shown_without_a_session(browser: httpx.AsyncClient) -> None:
    for path in PAGES:
        answer = await browser.get(path)
        assert (answer.status_code, answer.headers["location"]) == (303, f"/login?next={path}")
        assert "acme" not in answer.text
    assert (await browser.get("/")).headers["location"] == "/overview"
    refused = await browser.get("/admin/api/overview")
    assert (refused.status_code, refused.json()["error"]["code"]) == (401, "not_signed_in")


async def test_signing_in_and_out(
    browser: httpx.AsyncClient, database: Database, nats_client: Client
) -> None:
    await seen(browser, "/readyz", '"status":"ready"')  # its stream is declared by then
    actions = await nats_client.jetstream().subscribe("dozen.admin.v1.AdminActionTaken")
    answer = await sign_in(browser, at="/login?next=/usage%3Faccount%3Dacme")
    assert (answer.status_code, answer.headers["location"]) == (303, "/usage?account=acme")
    cookie = answer.headers.get_list("set-cookie")[0]
    assert {"HttpOnly", "SameSite=strict", "Max-Age=43200", "Path=/"} <= set(cookie.split("; "))
    assert "Secure" not in cookie
    assert browser.cookies["dozen_admin"].encode() not in await database.pool.fetchval(
        "select key from sessions"
    )
    page = await browser.get("/overview")
    assert page.status_code == 200
    await browser.post("/logout", data={"form": form_token(page.text)})
    assert (await browser.get("/overview")).status_code == 303
    for action in ("signed_in", "signed_out"):
        event = AdminActionTaken.FromString((await actions.next_msg(timeout=5)).data)
        assert (event.action, event.actor, event.address) == (action, "admin", "127.0.0.1")


async def test_behind_https_the_cookie_is_secure(browser: httpx.AsyncClient) -> None:
    answer = await browser.get("/login", headers={"x-forwarded-proto": "https"})
    assert "Secure" in answer.headers["set-cookie"]


async def test_a_link_to_elsewhere_is_not_followed_after_signing_in(browser: httpx.AsyncClient) -> None:
    for elsewhere in ("//evil.example", "https://evil.example", "/\\evil.example", "/overview%0d%0ax: y"):
        answer = await sign_in(browser, at=f"/login?next={elsewhere}")
        assert answer.headers["location"] == "/overview"


async def test_a_wrong_password_is_told_on_the_form_until_it_is_too_often(browser: httpx.AsyncClient) -> None:
    for _ in range(5):
        answer = await sign_in(browser, "wrong")
        assert answer.status_code == 401
        assert "The user name or the password is not right." in answer.text
        assert 'name="password"' in answer.text
    answer = await sign_in(browser)
    assert answer.status_code == 429
    assert 0 < int(answer.headers["retry-after"]) <= 60
    assert "Too many failed attempts" in answer.text
    assert (await browser.get("/overview")).status_code == 303


async def test_a_form_of_another_site_does_nothing(browser: httpx.AsyncClient) -> None:
    given = {"user": "admin", "password": PASSWORD}
    for form in ({}, {"form": ""}, {"form": "0" * 64}, {"form": "ä"}):
        await browser.get("/login")
        answer = await browser.post("/login", data=given | form)
        assert answer.status_code == 403
        assert "This form is no longer valid" in answer.text
    await sign_in(browser)
    assert (await browser.post("/logout")).status_code == 403
    assert (await browser.get("/overview")).status_code == 200


async def test_a_session_that_has_expired_shows_nothing(
    browser: httpx.AsyncClient, database: Database
) -> None:
    await sign_in(browser)
    assert (await browser.get("/overview")).status_code == 200
    await database.pool.execute("update sessions set expires_at = now()")
    assert (await browser.get("/overview")).status_code == 303
    assert (await browser.get("/admin/api/overview")).status_code == 401


async def test_what_others_have_named_is_never_markup(
    browser: httpx.AsyncClient, nats_server: NatsServer
) -> None:
    await tell_of_an_account(nats_server, name="<script>alert('x')</script>")
    await sign_in(browser)
    for path in ("/accounts", "/accounts/acme"):
        page = await seen(browser, path, "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;")
        assert "<script>" not in page
    page = (await browser.get("/usage", params={"account": '"><script>'})).text
    assert "<script>" not in page
    assert 'value="&#34;&gt;&lt;script&gt;"' in page


async def test_every_answer_has_the_headers_that_protect_a_browser(browser: httpx.AsyncClient) -> None:
    await sign_in(browser)
    for path in [*PAGES, "/login", "/nothing", "/admin/api/overview", "/static/style.css"]:
        headers = (await browser.get(path)).headers
        assert "default-src 'self'" in headers["content-security-policy"]
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "same-origin"
        assert headers["cache-control"] == (
            "public, max-age=31536000, immutable" if path.startswith("/static/") else "no-store"
        )


async def test_errors_are_pages_for_people_and_json_for_programs(browser: httpx.AsyncClient) -> None:
    await sign_in(browser)
    for path, status in [
        ("/nothing", 404),
        ("/accounts/nobody", 404),
        ("/accounts/NO", 400),
        ("/usage?after=", 400),
        ("/usage?after=%00", 400),
        ("/usage?account=%00", 400),
        ("/static/nothing", 404),
    ]:
        answer = await browser.get(path)
        assert answer.status_code == status
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        assert 'href="/overview"' in answer.text
    answer = await browser.get("/admin/api/nothing")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "unknown_url")


async def test_a_page_refers_only_to_files_that_are_there(browser: httpx.AsyncClient) -> None:
    await sign_in(browser)
    page = (await browser.get("/overview")).text
    files = set(re.findall(r'(?:src|href)="(/static/[^"]+)"', page))
    assert {file.partition("?")[0] for file in files} == {
        "/static/icon.svg",
        "/static/live.js",
        "/static/style.css",
    }
    for file in files:
        assert (await browser.get(file)).status_code == 200


async def test_usage_is_read_page_by_page(browser: httpx.AsyncClient, nats_server: NatsServer) -> None:
    rated = UsageRated()
    for number in range(60):
        usage = rated.charges.add(nano_credits=1).usage
        usage.request_id, usage.account_id = f"req_{number}", "acme"
        usage.quantities["output_tokens"] = 1
    async with publisher(nats_server, "credits") as publish:
        await publish(rated)
    await sign_in(browser)
    page = await seen(browser, "/usage?account=acme", "Next page")
    assert (page.count("<tr>"), "First page" in page) == (51, False)
    way = re.search(r'rel="next" href="([^"]+)"', page)
    assert way
    page = (await browser.get(way[1].replace("&amp;", "&"))).text
    assert (page.count("<tr>"), "First page" in page, "Next page" in page) == (11, True, False)
