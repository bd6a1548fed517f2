"""Responses: chat completions in the form of the Responses API, which are kept."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

import msgspec

from dozen_chassis.admission import Admission
from dozen_chat.domain.chat_answer import END, ChatAnswer, ChatError, read_answer, read_event
from dozen_chat.domain.chat_request import chat_request
from dozen_chat.domain.items import Item, new_hex, number
from dozen_chat.domain.response_object import join, new_response, write_apart
from dozen_chat.domain.response_request import Asked, read_request
from dozen_chat.domain.response_writer import ResponseWriter
from dozen_chat.domain.turns import Selection, Turn, page, read_stored, store, write_items
from dozen_chat.errors import ContextTooLong, ItemNotFound, ResponseNotCancellable, ResponseNotFound
from dozen_chat.service.contexts import Context, Contexts
from dozen_chat.service.validity import validly
from dozen_inference.generation import Answer
from dozen_inference.streams import EventCutter
from dozen_inference.upstream import UpstreamFailed

RESPONSES_PATH = "/v1/responses"

_DELETION_BATCH = 500


class Completions(Protocol):
    """Answers chat completions."""

    def complete(self, admitted: Admission, body: bytes, cache: str = "") -> Answer:
        """Answer a request body of `POST /v1/chat/completions`; `cache` is what the client wants of it."""
        ...


class Responses(Protocol):
    """The stored responses."""

    async def find(self, account: str, response_id: str) -> tuple[bytes, bytes] | None:
        """Give a response without its output, and that."""
        ...

    async def delete(self, account: str, response_id: str) -> bool:
        """Delete a response, or hide it while others go on from it; False where there is none."""
        ...

    async def forget(self, older_than: timedelta, limit: int) -> int:
        """Drop responses of that age, and deleted ones, that none goes on from; return how many."""
        ...


class Turns(Protocol):
    """Where it is kept what responses came to."""

    async def put(self, record: Turn) -> None:
        """Make a turn durable, even where the caller is cancelled meanwhile."""
        ...


@dataclass
class _Run:
    """A response that is being given."""

    account: str
    asked: Asked
    items: list[Item]
    context: Context
    writer: ResponseWriter
    kept: bool = False


class ResponsesService:
    """Answers requests of the Responses API by chat completions, and keeps what came of them."""

    def __init__(
        self,
        chat: Completions,
        responses: Responses,
        contexts: Contexts,
        turns: Turns,
        *,
        most_bytes: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`most_bytes` is how large a chat completion may be that is asked for a response."""
        self._chat = chat
        self._responses = responses
        self._contexts = contexts
        self._turns = turns
        self._most_bytes = most_bytes
        self._clock = clock

    def create(self, admitted: Admission, body: bytes, cache: str = "") -> Answer:
        """Answer a request body of `POST /v1/responses`; `cache` is what the client wants of it."""
        with validly():
            asked = read_request(body)
        headers: dict[str, str] = {}
        return Answer(bool(asked.request.stream), self._chunks(admitted, asked, cache, headers), headers)

    async def find(self, account: str, response_id: str) -> bytes:
        """Give a response as JSON."""
        found = await self._responses.find(account, response_id)
        if found is None:
            raise ResponseNotFound(f"Response with id '{response_id}' not found.")
        return join(*found)

    async def delete(self, account: str, response_id: str) -> None:
        """Delete a response. What went on from it goes on."""
        if not await self._responses.delete(account, response_id):
            raise ResponseNotFound(f"Response with id '{response_id}' not found.")

    async def cancel(self, account: str, response_id: str) -> bytes:
        """Cancel a response: always refused, as none is given in the background."""
        await self.find(account, response_id)
        raise ResponseNotCancellable()

    async def input_items(
        self, account: str, response_id: str, selection: Selection
    ) -> tuple[Sequence[Item], bool]:
        """Give a page of all that the model was to know, and whether there is more."""
        links = await self._contexts.chain(account, response_id)
        if not links:
            raise ResponseNotFound(f"Response with id '{response_id}' not found.")
        before = await self._contexts.said_before(links[0])
        items = [
            item for link in links for stored in (link.input, link.output) for item in read_stored(stored)
        ]
        own = len(read_stored(links[-1].output))
        found = page([*before, *items[: len(items) - own]], selection)
        if found is None:
            raise ItemNotFound(f"Item with id '{selection.after}' not found.", param="after")
        return found

    async def forget(self, older_than: timedelta) -> None:
        """Drop responses of that age."""
        while await self._responses.forget(older_than, _DELETION_BATCH):
            pass

    async def _chunks(
        self, admitted: Admission, asked: Asked, cache: str, headers: dict[str, str]
    ) -> AsyncGenerator[bytes, None]:
        account, request = admitted.account, asked.request
        response_id = f"resp_{new_hex()}"
        items = await self._contexts.resolve(account, asked.items)
        number(items, response_id.partition("_")[2])
        async with self._contexts.open(account, request, response_id) as context:
            with validly():
                body = chat_request(asked, [*context.items, *items])
            if len(body) > self._most_bytes:
                raise ContextTooLong()
            response = new_response(response_id, int(self._clock()), asked)
            writer = ResponseWriter(response, logprobs=request.with_logprobs)
            run = _Run(account, asked, items, context, writer)
            answer = self._chat.complete(admitted, body, cache)
            give = self._events if answer.stream else self._whole
            begun = False
            try:
                async with aclosing(answer.chunks) as chunks, aclosing(give(run, chunks)) as given:
                    async for chunk in given:
                        if not begun:
                            headers.update(answer.headers)
                            begun = True
                        yield chunk
            except (asyncio.CancelledError, GeneratorExit):
                if begun and not run.kept:
                    writer.cancel()
                    await self._keep(run)
                raise

    async def _whole(self, run: _Run, chunks: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
        whole = b"".join([chunk async for chunk in chunks])
        try:
            run.writer.take(read_answer(whole))
        except msgspec.MsgspecError as error:
            raise UpstreamFailed() from error
        run.writer.complete(int(self._clock()))
        yield join(*await self._keep(run))

    async def _events(self, run: _Run, chunks: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
        cutter, writer = EventCutter(), run.writer
        begun = False
        async for chunk in chunks:
            answers = _read(cutter.feed(chunk))
            if not begun and answers:
                if isinstance(answers[0], UpstreamFailed):
                    raise answers[0]
                begun = True
                said = writer.begin()
            else:
                said = b""
            for answer in answers:
                said += self._take(writer, answer)
                if writer.response.status != "in_progress":
                    await self._keep(run)
                    yield said
                    if answer is END:
                        await _drain(chunks)
                    return
            if said:
                yield said
        if not begun:
            raise UpstreamFailed()
        said = self._take(writer, END if writer.is_finished else UpstreamFailed())
        await self._keep(run)
        yield said

    def _take(self, writer: ResponseWriter, answer: ChatAnswer | UpstreamFailed) -> bytes:
        if isinstance(answer, UpstreamFailed):
            return writer.fail(ChatError(answer.message, answer.code))
        if answer.error is not None:
            return writer.fail(answer.error)
        return writer.complete(int(self._clock())) if answer is END else writer.take(answer)

    async def _keep(self, run: _Run) -> tuple[bytes, bytes]:
        """Write what came of a response; give it as it is written."""
        run.kept = True
        response, context = run.writer.response, run.context
        body, output = write_apart(response)
        ended = response.status in ("completed", "incomplete")
        if run.asked.request.is_stored or context.conversation_id:
            written = write_items(run.items)
            await self._turns.put(
                Turn(
                    account=run.account,
                    response_id=response.id,
                    previous_id=response.previous_response_id,
                    conversation_id=context.conversation_id,
                    known=context.known,
                    context_bytes=context.size + len(written) + len(output),
                    input=written,
                    output=output,
                    body=body if run.asked.request.is_stored else None,
                    added=store([*run.items, *response.output]) if context.conversation_id and ended else (),
                )
            )
        return body, output


async def _drain(chunks: AsyncGenerator[bytes, None]) -> None:
    """Let a complete answer end by itself, so that its connection is used again."""
    async for _ in chunks:
        pass


def _read(events: Sequence[bytes]) -> list[ChatAnswer | UpstreamFailed]:
    """Read events; what is none of a chat completion is the failure of the server that sent it."""
    answers: list[ChatAnswer | UpstreamFailed] = []
    for event in events:
        try:
            answer = read_event(event)
        except msgspec.MsgspecError:
            return [*answers, UpstreamFailed()]
        if answer is not None:
            answers.append(answer)
    return answers
