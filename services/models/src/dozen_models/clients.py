"""The client of the health URLs."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import aiohttp
from prometheus_client import Counter, Histogram

from dozen_models.domain.health import Answer, Outcome

PROBES = Counter("dozen_models_probes", "Probes of health URLs.", ["outcome"])
DURATION = Histogram("dozen_models_probe_duration_seconds", "Time of a probe of a health URL.")

_REASON_LENGTH = 200


class HealthClient:
    """Asks deployments how they are."""

    def __init__(self, session: aiohttp.ClientSession, longest: timedelta) -> None:
        self._session = session
        self._seconds = longest.total_seconds()

    async def ask(self, url: str) -> Answer:
        """Ask one health URL: only 200 is well; redirects are not followed, and the body is not read."""
        started = time.perf_counter()
        answer = await self._ask(url)
        PROBES.labels(answer.outcome.value).inc()
        DURATION.observe(time.perf_counter() - started)
        return answer

    async def _ask(self, url: str) -> Answer:
        timeout = aiohttp.ClientTimeout(total=self._seconds)
        try:
            async with self._session.get(url, allow_redirects=False, timeout=timeout) as response:
                outcome = Outcome.OK if response.status == 200 else Outcome.STATUS
                return Answer(outcome, f"answered {response.status}")
        except TimeoutError:
            return Answer(Outcome.TIMEOUT, f"no answer within {self._seconds:g} s")
        except aiohttp.ClientConnectorError as error:
            if isinstance(error.os_error, ConnectionRefusedError):
                return Answer(Outcome.REFUSED, "connection refused")
            return _broken(error)
        except aiohttp.ClientError as error:
            return _broken(error)


@asynccontextmanager
async def open_health_client(longest: timedelta) -> AsyncIterator[HealthClient]:
    """Open a client whose probes take no longer than `longest`.

    Each probe makes a connection of its own: whether one can be made is part of the question.
    """
    connector = aiohttp.TCPConnector(force_close=True, limit=0)
    async with aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar()) as session:
        yield HealthClient(session, longest)


def _broken(error: aiohttp.ClientError) -> Answer:
    return Answer(Outcome.BROKEN, f"{type(error).__name__}: {error}"[:_REASON_LENGTH])
