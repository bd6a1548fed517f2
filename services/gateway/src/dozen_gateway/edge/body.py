"""The body of a client's request, and what a decision needs to know of it."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.types import Receive

from dozen_chassis.errors import InvalidRequest, ServiceError
from dozen_gateway.errors import ClientLeft

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

_MOST_PARTS = 100
_MOST_MODEL_BYTES = 1024


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


@dataclass(frozen=True, slots=True)
class Asked:
    """What a body asks for."""

    model: str = ""
    stream: bool = False
    max_tokens: int | None = None
    choices: int = 1


async def read_asked(body: ClientBody, content_type: str) -> tuple[bytes, Asked]:
    """Read a body, a form or else JSON, and what it asks for."""
    kind, options = parse_options_header(content_type)
    if kind == b"multipart/form-data":
        return await _read_form(body, options.get(b"boundary", b""))
    whole = await body.read()
    return whole, _asked(whole)


class _Json(msgspec.Struct):
    model: str | None = None
    stream: bool | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    n: int | None = None


_DECODER = msgspec.json.Decoder(_Json)


def _asked(body: bytes) -> Asked:
    try:
        fields = _DECODER.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        message, _, place = str(error).partition(" - at `$.")
        raise InvalidRequest(
            f"The request body is not what this endpoint takes: {message}.",
            param=place.removesuffix("`") or None,
        ) from error
    most = fields.max_tokens if fields.max_completion_tokens is None else fields.max_completion_tokens
    choices = 1 if fields.n is None else fields.n
    return Asked(fields.model or "", bool(fields.stream), most, choices)


async def _read_form(body: ClientBody, boundary: bytes) -> tuple[bytes, Asked]:
    form, chunks = _Form(), []
    try:
        parser = MultipartParser(boundary, form.callbacks())
        async for chunk in body.chunks():
            parser.write(chunk)
            chunks.append(chunk)
        return b"".join(chunks), Asked(form.model())
    except (FormParserError, UnicodeDecodeError) as error:
        raise InvalidRequest("The request body is not a valid form.") from error


class _Form:
    """Picks the field `model` out of a form, and keeps nothing else of it."""

    def __init__(self) -> None:
        self._parts = 0
        self._header = b""
        self._value = b""
        self._is_model = False
        self._models: list[bytes] = []
        self._complete = False

    def callbacks(self) -> "MultipartCallbacks":
        """Give the callbacks for the parser."""
        return {
            "on_part_begin": self._on_part_begin,
            "on_header_field": self._on_header_field,
            "on_header_value": self._on_header_value,
            "on_header_end": self._on_header_end,
            "on_part_data": self._on_part_data,
            "on_end": self._on_end,
        }

    def model(self) -> str:
        """Give the model; empty where the form names none."""
        # Two of them could be read as one by us and as the other by the service.
        if not self._complete or len(self._models) > 1:
            raise FormParserError
        return self._models[0].decode() if self._models else ""

    def _on_part_begin(self) -> None:
        self._parts += 1
        self._is_model = False
        if self._parts > _MOST_PARTS:
            raise FormParserError

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            _, options = parse_options_header(self._value)
            if options.get(b"name") == b"model":
                self._is_model = True
                self._models.append(b"")
        self._header = self._value = b""

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._is_model:
            self._models[-1] += data[start:end]
            if len(self._models[-1]) > _MOST_MODEL_BYTES:
                raise FormParserError

    def _on_end(self) -> None:
        self._complete = True
