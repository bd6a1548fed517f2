"""One attempt at a deployment, as far as the beginning of its answer: until then another one may answer."""

import re
import time
from collections.abc import AsyncIterator, Sequence
from functools import cache
from typing import Any

import msgspec
from prometheus_client import Counter

from dozen_chassis.errors import ServiceError
from dozen_inference.formats.refusals import ProviderLimited
from dozen_inference.formats.wire import StreamTranslator, WireRequest
from dozen_inference.places import Link, Place
from dozen_inference.upstream import (
    MAX_ANSWER_BYTES,
    UpstreamAnswer,
    UpstreamFailed,
    upstream_error,
)
from dozen_inference.usage import Served
from dozen_inference.verdicts import Verdict, judge, rest_seconds

ATTEMPTS = Counter("dozen_inference_upstream_attempts", "Attempts at upstreams.", ["deployment", "outcome"])

attempted = cache(ATTEMPTS.labels)

_MOST_PEEKED_BYTES = 1024 * 1024
# llama.cpp says null where it has nothing to say yet.
_DATA = re.compile(rb"(?:\A|[\r\n])data: ?+(?!null[\r\n])([^\r\n]+)(?=[\r\n])")
_END = re.compile(rb"\n\n|\r\n\r\n|\r\r")
_FIELD = re.compile(rb"[\r\n:]|data:|event:|id:|retry:")
_LONGEST_FIELD = 6

# Between us and a provider: our bill, and how models and paths are called there.
_NOT_THE_CALLERS = (402, 404, 405)


class _Whole(msgspec.Struct):
    choices: list[msgspec.Raw]
    error: Any = None


class _Event(msgspec.Struct):
    object: Any = None
    error: Any = None


class Opened:
    """An answer that has begun well."""

    def __init__(
        self, answer: UpstreamAnswer, served: Served, translator: StreamTranslator | None, first: bytes
    ) -> None:
        self.served = served
        self.content_type = "application/json" if translator is None else "text/event-stream"
        self._answer = answer
        self._translator = translator
        self._first = first

    async def read(self) -> bytes:
        """Give the body of a whole answer."""
        return self._first

    async def chunks(self) -> AsyncIterator[bytes]:
        """Give the stream as it arrives, from its first byte on."""
        assert self._translator is not None
        feed = self._translator.feed
        yield self._first
        while chunk := await self._answer.chunk():
            if passing := feed(chunk):
                yield passing
        if passing := self._translator.end():
            yield passing


class Attempt:
    """One try at a deployment; it ends once."""

    def __init__(self, place: Place, entered: int, served: Served) -> None:
        """`entered` is the pass of the breaker; a place in the bulkhead has been taken too."""
        self._place = place
        self._entered = entered
        self._served = served
        self._answer: UpstreamAnswer | None = None

    async def ask(
        self,
        link: Link,
        wire: WireRequest,
        headers: Sequence[tuple[bytes, bytes]],
        *,
        key: str,
        stream: bool,
        deadline: float,
    ) -> Opened:
        """Give the answer once it has begun well, until a time of the monotonic clock; raise what it is else.

        What the upstream says is kept from everybody where it repeats the provider's `key`.
        """
        started = time.monotonic()
        self._answer = answer = await link.upstream.send(
            wire.path,
            wire.body,
            [*wire.headers, *headers],
            first_byte_seconds=max(0.0, deadline - started),
        )
        if answer.status != 200:
            raise _refusal(link, answer, _without(key, await _read(answer, deadline)))
        if stream:
            translator = link.format.stream()
            opened = Opened(answer, self._served, translator, await _peek(answer, translator, deadline))
            self._place.observe_first_byte(time.monotonic() - started)
        else:
            whole = _whole(link, _without(key, await _read(answer, deadline)))
            opened = Opened(answer, self._served, None, whole)
        self._place.breaker.begin(self._entered)
        return opened

    def end(self, error: BaseException | None) -> Verdict:
        """Note how it ended; the connection of an answer that was left is closed at once."""
        if self._answer is not None:
            self._answer.close()
        verdict = Verdict.ANSWERED if error is None else judge(error)
        place = self._place
        place.bulkhead.leave()
        place.breaker.leave(self._entered, verdict.failed)
        if verdict.failed is not None:
            place.ended += 1
            place.failed += verdict.failed
        if verdict is Verdict.LIMITED and isinstance(error, ServiceError):
            place.breaker.rest(rest_seconds(error))
        attempted(self._served.deployment, verdict.value).inc()
        return verdict


def _refusal(link: Link, answer: UpstreamAnswer, body: bytes) -> ServiceError:
    retry_after = answer.headers.get(b"retry-after", b"").decode("latin-1")
    error = link.format.error(answer.status, body, retry_after)
    if not link.secret:
        return error
    # Callers have no part in what is between a provider and whoever pays it.
    if error.http.status == 429:
        return ProviderLimited(headers=error.headers)
    return UpstreamFailed() if error.http.status in _NOT_THE_CALLERS else error


def _without(key: str, body: bytes) -> bytes:
    return body.replace(key.encode(), b"[key]") if key else body


async def _read(answer: UpstreamAnswer, deadline: float) -> bytes:
    """Give the body whole, however slowly it comes, but not after the deadline."""
    body = await answer.chunk()
    while chunk := await answer.chunk(deadline - time.monotonic()):
        body += chunk
        if len(body) > MAX_ANSWER_BYTES:
            raise UpstreamFailed()
    return body


def _whole(link: Link, body: bytes) -> bytes:
    answer = link.format.whole(body)
    try:
        if msgspec.json.decode(answer, type=_Whole).error is None:
            return answer
    except (msgspec.MsgspecError, UnicodeDecodeError):
        pass
    raise upstream_error(200, answer)


async def _peek(answer: UpstreamAnswer, translator: StreamTranslator, deadline: float) -> bytes:
    """Give the stream as far as its first event that says something; raise where that is an error."""
    if answer.content_type != "text/event-stream":
        raise upstream_error(200, await _read(answer, deadline))
    peeked = b""
    while (data := _said(peeked)) is None:
        if not (chunk := await answer.chunk(deadline - time.monotonic())):
            peeked += translator.end()
            if _said(peeked) is None:
                raise UpstreamFailed()
            continue
        peeked += translator.feed(chunk)
        if len(peeked) > _LONGEST_FIELD and not _FIELD.match(peeked):
            raise UpstreamFailed()
        if len(peeked) > _MOST_PEEKED_BYTES:
            raise UpstreamFailed()
    if data != b"[DONE]":
        try:
            event = msgspec.json.decode(data, type=_Event)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            raise UpstreamFailed() from None
        if event.error is not None or event.object == "error":
            raise upstream_error(200, data)
    return peeked


def _said(peeked: bytes) -> bytes | None:
    """Give the data of the first event that has any, once it is whole."""
    found = _DATA.search(peeked)
    return found[1] if found is not None and _END.search(peeked, found.end()) else None
