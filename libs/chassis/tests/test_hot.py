"""Hot paths: served before everything else, with errors in the usual form."""

import aiohttp
import pytest
from starlette.types import Receive, Scope, Send

from dozen_chassis.errors import InvalidRequest
from dozen_chassis.hot import HotPaths
from dozen_testing.http import serve

pytestmark = pytest.mark.integration


async def plain(scope: Scope, receive: Receive, send: Send) -> None:
    """Say which app answers."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"the other app"})


async def hot(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hot"})


async def refusing(scope: Scope, receive: Receive, send: Send) -> None:
    raise InvalidRequest("Not so.")


async def broken(scope: Scope, receive: Receive, send: Send) -> None:
    raise RuntimeError("secret")


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/hot", "hot"),
        ("GET", "/hot", "the other app"),
        ("POST", "/hot/", "the other app"),
        ("POST", "/", "the other app"),
    ],
)
async def test_exact_paths_are_served_by_their_apps(method: str, path: str, body: str) -> None:
    async with serve(HotPaths(plain, {"/hot": hot})) as url, aiohttp.ClientSession() as client:
        response = await client.request(method, f"{url}{path}")
        assert await response.text() == body


@pytest.mark.parametrize(
    ("path", "status", "code"), [("/no", 400, "invalid_request"), ("/bug", 500, "internal_error")]
)
async def test_errors_have_the_usual_form(path: str, status: int, code: str) -> None:
    app = HotPaths(plain, {"/no": refusing, "/bug": broken})
    async with serve(app) as url, aiohttp.ClientSession() as client:
        response = await client.post(f"{url}{path}")
        error = (await response.json())["error"]
    assert (response.status, error["code"]) == (status, code)
    assert "secret" not in error["message"]
