"""The body of a client's request, and what a decision needs to know of it."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import msgspec
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.types import Receive

from dozen_chassis.errors import InvalidRequest, ServiceError
from dozen_gateway.domain.bounds import Asked
from dozen_gateway.edge.form import ModelField
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


@dataclass(frozen=True, slots=True)
class Question:
    """What a body asks for, and of whom."""

    model: str
    asked: Asked
    stream: bool = False


async def read_question(body: ClientBody, content_type: str) -> tuple[bytes, Question]:
    """Read a body, a form or else JSON, and what it asks for."""
    kind, options = parse_options_header(content_type)
    if kind == b"multipart/form-data":
        return await _read_form(body, options.get(b"boundary", b""))
    whole = await body.read()
    return whole, _question(whole)


class _Json(msgspec.Struct):
    model: str | None = None
    stream: bool | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    n: int | None = None
    best_of: int | None = None
    n_cmpl: int | None = None
    """What llama.cpp calls `n`."""
    prompt: msgspec.Raw = msgspec.Raw()
    messages: msgspec.Raw = msgspec.Raw()


class _Part(msgspec.Struct):
    type: str


class _Message(msgspec.Struct):
    content: str | list[_Part] | None = None


_DECODER = msgspec.json.Decoder(_Json)
_MESSAGES = msgspec.json.Decoder(list[_Message])
_PROMPTS = msgspec.json.Decoder(list[msgspec.Raw])
_TEXTS = {"text", "input_text", "output_text", "refusal"}


def _question(body: bytes) -> Question:
    try:
        fields = _DECODER.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        message, _, place = str(error).partition(" - at `$.")
        raise InvalidRequest(
            f"The request body is not what this endpoint takes: {message}.",
            param=place.removesuffix("`") or None,
        ) from error
    most = fields.max_tokens if fields.max_completion_tokens is None else fields.max_completion_tokens
    each = max(1 if fields.n is None else fields.n, fields.best_of or 0, fields.n_cmpl or 0)
    asked = Asked(len(body), _prompts(fields.prompt) * each, most, _media_parts(fields.messages))
    return Question(fields.model or "", asked, bool(fields.stream))


def _prompts(prompt: msgspec.Raw) -> int:
    """Count the prompts; a list of token ids is one."""
    if bytes(memoryview(prompt)[:1]) != b"[":
        return 1
    prompts = _PROMPTS.decode(prompt)
    return len(prompts) if prompts and bytes(memoryview(prompts[0])[:1]) in (b'"', b"[") else 1


def _media_parts(messages: msgspec.Raw) -> int:
    """Count the parts of the content that are no text; what cannot be read may be one."""
    if not memoryview(messages):
        return 0
    try:
        contents = [message.content for message in _MESSAGES.decode(messages)]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return 1
    return sum(
        part.type not in _TEXTS for content in contents if isinstance(content, list) for part in content
    )


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
