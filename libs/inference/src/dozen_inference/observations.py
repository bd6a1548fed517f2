"""What this process sees of the upstreams, told once a second to whoever routes requests to them."""

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable

from google.protobuf.message import Message
from prometheus_client import Gauge

from dozen.models.v1.models_events_pb2 import (
    BREAKER_STATE_CLOSED,
    BREAKER_STATE_HALF_OPEN,
    BREAKER_STATE_OPEN,
    UpstreamObservation,
    UpstreamsObserved,
)
from dozen_chassis.errors import ServiceError
from dozen_inference.breakers import State
from dozen_inference.places import Place, Places
from dozen_inference.server_metrics import ServerLoad, read_load
from dozen_inference.upstream import Upstream, UpstreamNotReady

REQUESTS = Gauge("dozen_inference_upstream_requests", "Requests at an upstream.", ["deployment"])
BREAKERS = Gauge("dozen_inference_breaker", "Breakers: 0 closed, 1 half-open, 2 open.", ["deployment"])

_STATES = {
    State.CLOSED: (BREAKER_STATE_CLOSED, 0),
    State.HALF_OPEN: (BREAKER_STATE_HALF_OPEN, 1),
    State.OPEN: (BREAKER_STATE_OPEN, 2),
}
_LOOK_SECONDS = 0.5
_SILENT_SECONDS = 30.0
"""How long a server is left alone that answers, and does not tell."""


class Observer:
    """Tells what this process sees."""

    def __init__(self, service: str, places: Places, tell: Callable[[Message], Awaitable[None]]) -> None:
        self._name = f"{service}-{uuid.uuid4().hex[:8]}"
        self._places = places
        self._tell = tell
        self._silent: dict[Upstream, float] = {}
        """Servers that do not tell, until when they are not asked."""
        self._labelled: set[str] = set()

    async def observe(self) -> None:
        """Look at everything once, and tell of it."""
        seen = {name: place for name, place in self._places.places().items() if name}
        servers = {name: self._places.telling(name) for name in seen}
        asked = {server for server in servers.values() if server is not None}
        looked = await asyncio.gather(*map(self._look, asked))
        loads = dict(zip(asked, looked, strict=True))
        observed = UpstreamsObserved(observer=self._name)
        for name, place in seen.items():
            server = servers[name]
            load = ServerLoad() if server is None else loads[server]
            observed.upstreams.append(_observation(name, place, load))
        self._measure(seen)
        await self._tell(observed)

    async def _look(self, server: Upstream) -> ServerLoad:
        now = time.monotonic()
        if self._silent.get(server, 0.0) > now:
            return ServerLoad()
        self._silent = {one: until for one, until in self._silent.items() if until > now}
        load = ServerLoad()
        try:
            load = read_load(await server.get("/metrics", seconds=_LOOK_SECONDS))
        except UpstreamNotReady:  # it has no metrics
            pass
        except ServiceError:  # it is away, or busy
            return load
        if load == ServerLoad():
            self._silent[server] = now + _SILENT_SECONDS
        return load

    def _measure(self, seen: dict[str, Place]) -> None:
        for name in self._labelled - seen.keys():  # no more in the catalogue
            REQUESTS.remove(name)
            BREAKERS.remove(name)
        for name, place in seen.items():
            REQUESTS.labels(name).set(place.bulkhead.taken)
            BREAKERS.labels(name).set(_STATES[place.breaker.state][1])
        self._labelled = set(seen)


def _observation(name: str, place: Place, load: ServerLoad) -> UpstreamObservation:
    """Say how a deployment does, and begin to count anew."""
    observation = UpstreamObservation(
        deployment_id=name,
        requests=place.bulkhead.taken,
        running=load.running,
        waiting=load.waiting,
        kv_cache_usage=load.kv_cache_usage,
        first_byte_seconds=place.first_byte_seconds,
        ended=place.ended,
        failed=place.failed,
        breaker=_STATES[place.breaker.state][0],
    )
    place.ended = place.failed = 0
    return observation
