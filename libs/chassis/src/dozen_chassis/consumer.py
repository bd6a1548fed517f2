"""Durable consumers: every event is handled at least once, and kept where it cannot be."""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import UTC
from typing import Any

import nats.errors
from google.protobuf.message import DecodeError, Message
from nats.aio.msg import Msg
from opentelemetry.trace import SpanKind
from prometheus_client import Counter, Histogram

from dozen_chassis.bus import ACK_SECONDS, Bus
from dozen_chassis.errors import TRANSIENT, ServiceError
from dozen_chassis.events import ID_HEADER, Delivery, stream, subject
from dozen_chassis.logging import request_id
from dozen_chassis.postgres import PASSING, Database
from dozen_chassis.tasks import end
from dozen_chassis.telemetry import trace_context, tracer

log = logging.getLogger(__name__)

HANDLED = Counter("dozen_consumer_events", "Events taken from JetStream.", ["event", "outcome"])
DURATION = Histogram("dozen_consumer_event_duration_seconds", "Time to handle an event.", ["event"])

MOST_ATTEMPTS = 20
"""An event whose handler breaks so often is set aside; one that waits for a dependency is not."""
_BATCH = 32
_LONGEST_DELAY_SECONDS = 60.0

Handler = Callable[[Any, Delivery], Awaitable[None]]


@dataclass(frozen=True)
class Subscription:
    """An event that a service takes, and what it does with it."""

    event: type[Message]
    handle: Handler
    filter: str = ""
    """The end of the subjects to take, such as `.chat.>`; empty takes the event's plain subject."""
    concurrency: int = 1
    """How many events are handled side by side. With one, they come in order unless one is redelivered."""


def bind(
    handlers: Mapping[type[Message], Callable[[Any, Delivery, Any], Awaitable[None]]], service: object
) -> list[Subscription]:
    """Bind a table of handlers to the service that they call."""

    def bound(handler: Callable[[Any, Delivery, Any], Awaitable[None]]) -> Handler:
        return lambda event, delivery: handler(event, delivery, service)

    return [Subscription(event, bound(handler)) for event, handler in handlers.items()]


def concurrently(subscriptions: list[Subscription], concurrency: int, filter: str = "") -> list[Subscription]:
    """Give subscriptions that handle several events side by side, of subjects that end in `filter`."""
    return [replace(one, concurrency=concurrency, filter=filter) for one in subscriptions]


class Consumer:
    """The consume loop of one subscription."""

    def __init__(
        self,
        service: str,
        subscription: Subscription,
        bus: Bus,
        database: Database,
        *,
        is_traced: bool = False,
    ) -> None:
        self._subscription = subscription
        self._bus = bus
        self._database = database
        self._is_traced = is_traced
        self._event = subscription.event.DESCRIPTOR.name
        self._duration = DURATION.labels(self._event)
        self.durable = f"{service}-{self._event}"

    async def run(self, stopping: asyncio.Event) -> None:
        """Handle events until `stopping` is set; finish those that are being handled then."""
        workers = [asyncio.create_task(self._work(stopping)) for _ in range(self._subscription.concurrency)]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()

    async def _work(self, stopping: asyncio.Event) -> None:
        subscription = self._subscription
        messages = self._bus.pull(
            stream(subscription.event),
            self.durable,
            subject(subscription.event) + subscription.filter,
            batch=_BATCH if subscription.concurrency == 1 else 1,
        )
        stopped = asyncio.create_task(stopping.wait())
        try:
            while True:
                arriving = asyncio.ensure_future(anext(messages))
                try:
                    await asyncio.wait((arriving, stopped), return_when=asyncio.FIRST_COMPLETED)
                    if stopping.is_set():
                        return  # what arrived just now is delivered again, elsewhere
                finally:
                    await end(arriving, patience=0.2)
                await self._take(arriving.result())
        finally:
            stopped.cancel()
            await messages.aclose()

    async def _take(self, message: Msg) -> None:
        headers = message.headers or {}
        delivery = Delivery(
            id=headers.get(ID_HEADER) or f"{message.metadata.stream}-{message.metadata.sequence.stream}",
            attempt=message.metadata.num_delivered or 1,
            published_at=message.metadata.timestamp.astimezone(UTC),
        )
        identified = request_id.set(delivery.id)
        started = time.perf_counter()
        try:
            with self._span(headers):
                outcome = await self._handle(message, delivery)
            HANDLED.labels(self._event, outcome).inc()
            self._duration.observe(time.perf_counter() - started)
        except nats.errors.Error as error:  # not acknowledged, so it comes again
            log.warning("acknowledging %s failed: %r", self._event, error)
        finally:
            request_id.reset(identified)

    def _span(self, headers: Mapping[str, str]) -> AbstractContextManager[object]:
        if not self._is_traced:
            return nullcontext()
        return tracer.start_as_current_span(
            f"consume {self._event}", context=trace_context(headers), kind=SpanKind.CONSUMER
        )

    async def _handle(self, message: Msg, delivery: Delivery) -> str:
        try:
            with _kept_alive(message):
                await self._subscription.handle(self._subscription.event.FromString(message.data), delivery)
        except DecodeError as error:
            return await self._set_aside(message, delivery, error)
        except ServiceError as error:
            if error.status not in TRANSIENT:
                return await self._set_aside(message, delivery, error)
            return await _later(message, delivery, error)
        except Exception as error:  # a handler's mistake, or a dependency's; the next attempt may do better
            log.exception("handling %s failed", self._event, extra={"attempt": delivery.attempt})
            if delivery.attempt >= MOST_ATTEMPTS and not isinstance(error, PASSING):
                return await self._set_aside(message, delivery, error)
            return await _later(message, delivery, error)
        await message.ack()
        return "done"

    async def _set_aside(self, message: Msg, delivery: Delivery, error: Exception) -> str:
        """Keep what cannot be handled, for people, in the service's own database."""
        try:
            await self._database.pool.execute(
                "insert into dead_letters (event_id, subject, payload, error, attempts)"
                " values ($1, $2, $3, $4, $5) on conflict do nothing",
                delivery.id, message.subject, message.data, repr(error), delivery.attempt,
            )  # fmt: skip
        except Exception as failure:  # without a database it cannot be kept, so it comes again
            return await _later(message, delivery, failure)
        log.error("%s is set aside: %r", self._event, error, extra={"attempt": delivery.attempt})
        await message.term()
        return "dead_lettered"


async def _later(message: Msg, delivery: Delivery, error: Exception) -> str:
    delay = min(_LONGEST_DELAY_SECONDS, 0.25 * 2 ** min(delivery.attempt, 10)) * random.uniform(0.5, 1)
    log.warning("%s is delivered again in %.1f s: %r", message.subject, delay, error)
    await message.nak(delay=delay)
    return "retried"


@contextmanager
def _kept_alive(message: Msg) -> Iterator[None]:
    """Tell JetStream that a message is worked on for as long as the block lasts."""
    telling: list[asyncio.Task[None]] = []  # none where the work is done soon, as it nearly always is

    async def tell() -> None:
        while True:
            await message.in_progress()
            await asyncio.sleep(ACK_SECONDS / 3)

    timer = asyncio.get_running_loop().call_later(
        ACK_SECONDS / 3, lambda: telling.append(asyncio.create_task(tell()))
    )
    try:
        yield
    finally:
        timer.cancel()
        for task in telling:
            task.cancel()
