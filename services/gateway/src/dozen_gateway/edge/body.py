"""The body of a client's request, and what a decision needs to know of it."""

import asyncio
from collections.abc import AsyncIterator

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.types import Receive

from dozen_chassis.errors import InvalidRequest, ServiceError
from dozen_gateway.domain.bounds import Asked
from dozen_gateway.edge.form import ModelField
from dozen_gateway.edge.question import Question, read_json
from dozen_gateway.errors.edge import ClientLeft


class ClientBody:
    """Reads the body of one request, and then hears of its client leaving."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._ended = asyncio.Event()
        self.failure: ServiceError | None = None
        """Why the body could not be read to its end."""

    async def chunks(self) -> AsyncIterator[bytes]:
        """Give the body as it arrives."""
        while not self._ended.is_set():
            try:
                message = await self._receive()
                if message["type"] == "http.disconnect":
                    raise ClientLeft()
            except ServiceError as error:
                self.failure = error
                raise
            if not message.get("more_body", False):
                self._ended.set()
            if chunk := message.get("body", b""):
                yield chunk

    async def read(self) -> bytes:
        """Give the whole body."""
        return b"".join([chunk async for chunk in self.chunks()])

    async def departure(self) -> None:
        """Wait for the client to leave; who leaves in the middle of the body is noticed by its reader."""
        await self._ended.wait()
        while (await self._receive())["type"] != "http.disconnect":
            pass


async def read_question(path: str, body: ClientBody, content_type: str) -> tuple[bytes, Question]:
    """Read a body, a form or else JSON, and what it asks for."""
    kind, options = parse_options_header(content_type)
    if kind == b"multipart/form-data":
        return await _read_form(body, options.get(b"boundary", b""))
    whole = await body.read()
    return whole, read_json(path, whole)


async def _read_form(body: ClientBody, boundary: bytes) -> tuple[bytes, Question]:
    form, chunks = ModelField(), []
    try:
        parser = MultipartParser(boundary, form.callbacks())
        async for chunk in body.chunks():
            parser.write(chunk)
            chunks.append(chunk)
        whole = b"".join(chunks)
        return whole, Question(form.model(), Asked(len(whole)))
    except (FormParserError, UnicodeDecodeError) as error:
        raise InvalidRequest("The request body is not a valid form.") from error
