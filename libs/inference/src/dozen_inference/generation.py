"""Completions passed through from an inference server, whoever leaves or fails when."""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from dozen_chassis.admission import Admission
from dozen_chassis.errors import InternalError, ServiceError, Status
from dozen_inference.departure import ClientLeft
from dozen_inference.outcome import Run, Settle
from dozen_inference.request import CompletionRequest
from dozen_inference.streams import EventCutter, error_event
from dozen_inference.upstream import Upstream, UpstreamAnswer, UpstreamFailed, upstream_error

log = logging.getLogger(__name__)


class UpstreamOverloaded(ServiceError):
    """Too many requests are at the inference server; try again later."""

    status = Status.UNAVAILABLE
    code = "upstream_overloaded"


@dataclass(frozen=True, slots=True)
class Answer:
    """A completion for a client; the request is sent upstream when the first chunk is asked for."""

    stream: bool
    chunks: AsyncGenerator[bytes, None]
    """An error is raised before the first chunk; after it, it is the last event of the stream."""


class Generator:
    """Passes completions of one kind through, a limited number at once."""

    def __init__(
        self,
        upstream: Upstream,
        path: str,
        operation: str,
        *,
        most_requests: int,
        first_byte_seconds: float,
        answer_seconds: float,
    ) -> None:
        """`operation` is OpenTelemetry's `gen_ai.operation.name`; `answer_seconds` is for whole answers."""
        self._upstream = upstream
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
        return Answer(request.stream, self._chunks(admission, request, settle, min(limit, seconds or limit)))

    async def _chunks(
        self, admission: Admission, request: CompletionRequest, settle: Settle, seconds: float
    ) -> AsyncGenerator[bytes, None]:
        if self._requests >= self._most_requests:
            raise UpstreamOverloaded(headers={"retry-after": "1"})
        self._requests += 1
        run = Run(self._operation, admission, request, settle)
        try:
            async with aclosing(self._pass_through(run, seconds)) as chunks:
                async for chunk in chunks:
                    yield chunk
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

    async def _pass_through(self, run: Run, seconds: float) -> AsyncGenerator[bytes, None]:
        request, headers = run.request, run.headers()
        async with self._upstream.post(
            self._path, request.body, headers, first_byte_seconds=seconds
        ) as answer:
            if not request.stream:
                run.take_whole(await answer.read())
                await run.end()
                yield run.answer
            elif answer.content_type != "text/event-stream":
                raise upstream_error(200, await answer.read())
            else:
                async for chunk in _stream(run, answer):
                    yield chunk


async def _stream(run: Run, answer: UpstreamAnswer) -> AsyncGenerator[bytes, None]:
    cutter, tally = EventCutter(), run.tally
    async for chunk in answer.chunks():
        if passing := tally.take(cutter.feed(chunk)):
            run.begin()
            yield passing
        if tally.error is not None:
            raise tally.error
        if tally.end:
            await run.end()
            yield tally.end
            return
    log.warning("the inference server ended a stream before its end")
    raise UpstreamFailed()
