"""The connection to NATS JetStream: it comes and goes, and the service lives on."""

import asyncio
import json
import logging
from collections.abc import AsyncGenerator
from typing import TypeVar
from urllib.parse import urlsplit

import nats.errors
import nats.js.errors
from google.protobuf.message import DecodeError, Message
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, StreamConfig

from dozen_chassis.events import Envelope, subject

Fact = TypeVar("Fact", bound=Message)

log = logging.getLogger(__name__)

PUBLISH_SECONDS = 5.0
STREAM_SECONDS = 7 * 24 * 3600.0
"""How long an event can be read; by then every consumer has had it."""
ACK_SECONDS = 30.0
"""A message that is neither acknowledged nor worked on for so long is delivered again."""
FACTS = "facts."
"""Begins the subjects of what no stream keeps."""
_PULL_SECONDS = 5.0
_RETRY_SECONDS = 1.0


class NotConnected(nats.errors.Error):
    """There is no connection to NATS at the moment."""


class Bus:
    """A service's connection to NATS, kept up in the background for as long as `run` runs."""

    def __init__(self, url: str, *, replicas: int = 1) -> None:
        self._url = url
        self._replicas = replicas
        self._client = Client()
        self._connected = asyncio.Event()

    @property
    def jetstream(self) -> JetStreamContext:
        """JetStream of the connection."""
        return self._client.jetstream(timeout=PUBLISH_SECONDS)

    async def run(self, domain: str) -> None:
        """Connect, and again whenever the connection is lost; declare the stream of a domain's events."""
        user = urlsplit(self._url).username or ""
        changed = asyncio.Event()

        async def on_change() -> None:
            changed.set()

        try:
            await self._client.connect(
                self._url,
                name=user,
                inbox_prefix=f"_INBOX_{user}".encode(),  # the only place where the user may receive answers
                max_reconnect_attempts=-1,
                reconnect_time_wait=1,
                connect_timeout=2,
                error_cb=_log_error,
                reconnected_cb=on_change,
                closed_cb=on_change,
            )
            while not self._client.is_closed:
                changed.clear()
                await self._declare(domain)  # each time, in case the server has come back without it
                self._connected.set()
                await changed.wait()
            raise NotConnected()  # for good, such as after another password; a new process may do better
        finally:
            await self._client.close()

    def is_connected(self) -> bool:
        """Tell whether the connection stands."""
        return self._client.is_connected and self._connected.is_set()

    async def ping(self) -> None:
        """Raise unless the connection stands."""
        if not self.is_connected():
            raise NotConnected()

    async def connected(self) -> None:
        """Wait until the service has connected for the first time."""
        await self._connected.wait()

    async def publish(self, envelope: Envelope) -> None:
        """Publish one event; return when it is stored, raise where that is not certain."""
        await self.ping()
        await self.jetstream.publish(
            envelope.subject, envelope.payload, headers=dict(envelope.headers), timeout=PUBLISH_SECONDS
        )

    async def tell(self, fact: Message) -> None:
        """Tell whoever listens just now what may be lost without harm, as it is without a connection."""
        if self.is_connected():
            await self._client.publish(FACTS + subject(fact), fact.SerializeToString())

    async def hear(self, kind: type[Fact]) -> AsyncGenerator[Fact, None]:
        """Give facts of a kind as they are told, without end; those told while nobody listened are lost."""
        await self.connected()
        subscription = await self._client.subscribe(FACTS + subject(kind))
        try:
            async for message in subscription.messages:
                try:
                    yield kind.FromString(message.data)
                except DecodeError as error:
                    log.warning("a fact of %s cannot be read: %r", message.subject, error)
        finally:
            if not self._client.is_closed:
                await subscription.unsubscribe()

    async def pull(self, stream: str, durable: str, subject: str, batch: int) -> AsyncGenerator[Msg, None]:
        """Give the messages of a durable consumer without end; create it, once its stream exists.

        Messages arrive one by one as they are published, at most `batch` ahead of the caller.
        """
        await self.connected()
        await self._create_consumer(stream, durable, subject)
        next_subject = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{durable}"
        request = json.dumps({"batch": batch, "expires": int(_PULL_SECONDS * 1e9)}).encode()
        inbox = self._client.new_inbox()
        subscription = await self._client.subscribe(inbox)
        try:
            while True:
                await self._client.publish(next_subject, request, reply=inbox)
                for _ in range(batch):
                    try:
                        message = await subscription.next_msg(timeout=_PULL_SECONDS + 1)
                    except nats.errors.TimeoutError:  # the request was lost with a connection
                        break
                    if status := (message.headers or {}).get("Status"):
                        if status != "408":  # not just the end of a request: the consumer may be gone
                            await asyncio.sleep(_RETRY_SECONDS)
                            await self._create_consumer(stream, durable, subject)
                        break
                    yield message
        finally:
            if not self._client.is_closed:
                await subscription.unsubscribe()

    async def _declare(self, domain: str) -> None:
        config = StreamConfig(
            name=domain.upper(),
            subjects=[f"dozen.{domain}.v1.>"],
            max_age=STREAM_SECONDS,
            num_replicas=self._replicas,
        )
        while not self._client.is_closed:
            try:
                try:
                    await self.jetstream.add_stream(config)  # the same again changes nothing
                except nats.js.errors.BadRequestError:  # it exists, and is not the same
                    await self.jetstream.update_stream(config)
                return
            except nats.errors.Error as error:
                log.warning("stream %s is not declared yet: %r", config.name, error)
            await asyncio.sleep(_RETRY_SECONDS)

    async def _create_consumer(self, stream: str, durable: str, subject: str) -> None:
        config = ConsumerConfig(
            name=durable,
            durable_name=durable,
            filter_subject=subject,
            ack_policy=AckPolicy.EXPLICIT,
            ack_wait=ACK_SECONDS,
        )
        while True:
            try:
                await self.jetstream.add_consumer(stream, config)
                return
            except nats.errors.Error as error:  # mostly: the stream's service has not been up yet
                log.info("consumer %s waits for stream %s: %r", durable, stream, error)
            await asyncio.sleep(_RETRY_SECONDS)


async def _log_error(error: Exception) -> None:
    log.warning("NATS: %r", error)
