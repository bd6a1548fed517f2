"""The other services' readiness, over HTTP: the only thing that admin asks of them."""

import asyncio
import json
from typing import Any

import aiohttp

from dozen_admin.domain.watch import Answer

_MOST_BYTES = 64 * 1024
_MOST_DETAIL = 300


class ReadinessProbe:
    """Asks services at `/readyz`; one that does not answer in time is down."""

    def __init__(self, session: aiohttp.ClientSession, *, timeout_seconds: float = 2) -> None:
        self._session = session
        self._timeout_seconds = timeout_seconds

    async def ask(self, address: str) -> Answer:
        """Ask the service at a base URL; give an answer in any case, in bounded time."""
        try:
            async with (
                asyncio.timeout(self._timeout_seconds),
                self._session.get(f"{address}/readyz", allow_redirects=False) as response,
            ):
                return _answer(response.status, await _read(response.content))
        except TimeoutError:
            return Answer("down", f"no answer within {self._timeout_seconds:g} s")
        except (aiohttp.ClientError, OSError) as error:
            return Answer("down", f"no answer: {error}"[:_MOST_DETAIL])


async def _read(content: aiohttp.StreamReader) -> bytes:
    body = b""
    while len(body) < _MOST_BYTES and (chunk := await content.read(_MOST_BYTES)):
        body += chunk
    return body


def _answer(status: int, body: bytes) -> Answer:
    try:
        said: Any = json.loads(body)
        state, checks = str(said["status"]), dict(said["checks"])
    except (ValueError, KeyError, TypeError):
        return Answer("down", f"answers {status}, and not as a service of this platform does")
    failing = "; ".join(f"{name}: {check}" for name, check in checks.items() if check != "ok")
    healthy = status == 200 and state in ("ready", "degraded")
    return Answer(state if healthy else "down", (failing if healthy else failing or state)[:_MOST_DETAIL])
