"""Completions passed through from an inference server, whoever leaves or fails when."""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass, field
from typing import Protocol

from dozen_chassis.admission import Admission
from dozen_chassis.errors import InternalError, ServiceError, Status
from dozen_inference.departure import ClientLeft
from dozen_inference.outcome import Run, Settle
from dozen_inference.request import CompletionRequest
from dozen_inference.streams import DONE, EventCutter, error_event
from dozen_inference.upstream import UpstreamFailed, upstream_error
from dozen_inference.usage import Served

log = logging.getLogger(__name__)


class UpstreamOverloaded(ServiceError):
    """Too many requests are at the inference server; try again later."""

    status = Status.UNAVAILABLE
    code = "upstream_overloaded"


class OpenedAnswer(Protocol):
    """A success that has begun, in OpenAI's format."""

    @property
    def served(self) -> Served:
        """Who answers."""
        ...

    @property
    def content_type(self) -> str:
        """Without parameters, in lower case."""
        ...

    def chunks(self) -> AsyncIterator[bytes]:
        """Give the bytes of the body as they arrive."""
        ...

    async def read(self) -> bytes:
        """Give the body whole."""
        ...


class Upstreams(Protocol):
    """Where completions come from."""

    def open(
        self,
        admission: Admission,
        request: CompletionRequest,
        path: str,
        headers: Mapping[str, str],
        *,
        seconds: float,
    ) -> AbstractAsyncContextManager[OpenedAnswer]:
        """Send a request and give the answer once it has begun, within so many seconds.

        Raise a `ServiceError` where nothing can answer. Leaving the block before the end of the answer
        closes the connection, which makes the server stop.
        """
        ...


@dataclass(frozen=True, slots=True)
class Answer:
    """A completion for a client; the request is sent upstream when the first chunk is asked for."""

    stream: bool
    chunks: AsyncGenerator[bytes, None]
    """An error is raised before the first chunk; after it, it is the last event of the stream."""
    headers: dict[str, str] = field(default_factory=dict)
    """For the client; complete once there is a first chunk."""


class Generator:
    """Passes completions of one kind through, a limited number at once."""

    def __init__(
        self,
        upstreams: Upstreams,
        path: str,
        operation: str,
        *,
        most_requests: int,
        first_byte_seconds: float,
        answer_seconds: float,
    ) -> None:
        """`operation` is OpenTelemetry's `gen_ai.operation.name`; `answer_seconds` is for whole answers."""
        self._upstreams = upstreams
        self._path = path
        self._operation = operation
        self._most_requests = most_requests
        self._first_byte_seconds = first_byte_seconds
        self._answer_seconds = answer_seconds
        self._requests = 0

    def answer(
        self,
        admission: Admission,
        request: CompletionRequest,
        settle: Settle,
        *,
        seconds: float | None = None,
    ) -> Answer:
        """Answer a request, within so many seconds where they are given.

        `settle` is called once for each request that is sent upstream: before the last chunk is given,
        or when the upstream has failed or the client has left.
        """
        limit = self._first_byte_seconds if request.stream else self._answer_seconds
        headers: dict[str, str] = {}
        chunks = self._chunks(admission, request, settle, min(limit, seconds or limit), headers)
        return Answer(request.stream, chunks, headers)

    async def _chunks(
        self,
        admission: Admission,
        request: CompletionRequest,
        settle: Settle,
        seconds: float,
        headers: dict[str, str],
    ) -> AsyncGenerator[bytes, None]:
        if self._requests >= self._most_requests:
            raise UpstreamOverloaded(headers={"retry-after": "1"})
        self._requests += 1
        run = Run(self._operation, admission, request, settle)
        try:
            async with self._upstreams.open(
                admission, request, self._path, run.headers(), seconds=seconds
            ) as answer:
                run.served = answer.served
                headers.update(answer.served.headers())
                if request.stream:
                    async with aclosing(_stream(run, answer)) as chunks:
                        async for chunk in chunks:
                            yield chunk
                else:
                    run.take_whole(await answer.read())
                    await run.end()
                    yield run.answer
        except ServiceError as error:
            await run.end(error)
            if not (run.begun and request.stream):
                raise
            yield error_event(error)
        except (asyncio.CancelledError, GeneratorExit):
            await run.end(ClientLeft())
            raise
        finally:
            self._requests -= 1
            await run.end(InternalError())  # where it was none of these


async def _stream(run: Run, answer: OpenedAnswer) -> AsyncGenerator[bytes, None]:
    if answer.content_type != "text/event-stream":
        raise upstream_error(200, await answer.read())
    cutter, tally = EventCutter(), run.tally
    async for chunk in answer.chunks():
        if passing := tally.take(cutter.feed(chunk)):
            run.begin()
            yield passing
        if tally.error is not None:
            raise tally.error
        if tally.end:
            break
    if not tally.end and not tally.finish_reason:
        log.warning("the inference server ended a stream before its end")
        raise UpstreamFailed()
    await run.end()
    yield tally.end or DONE  # a server that has said how its answer finished may have left out the mark
