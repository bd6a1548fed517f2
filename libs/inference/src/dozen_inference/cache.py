"""Answers that are given again: to the same account, for the same deterministic request."""

import hashlib
import re
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import replace
from datetime import timedelta
from enum import Enum
from typing import Any, NamedTuple, Protocol

import msgspec
from prometheus_client import Counter

from dozen_chassis.admission import Admission
from dozen_chassis.errors import InvalidRequest
from dozen_inference.generation import Answer
from dozen_inference.hold import most_tokens
from dozen_inference.outcome import Outcome
from dozen_inference.request import CompletionRequest

REQUESTS = Counter("dozen_inference_cache_requests", "Requests for cached answers.", ["model", "outcome"])

HEADER = b"x-cache"
"""What a client sends to have an answer from the cache, or none."""
UNIT = "cache_hits"
"""What an answer from the cache is charged in."""

MOST_BYTES = 256 * 1024
"""Of an answer that is kept."""

# What two requests may differ in and still have the same answer.
_NO_MATTER = ("metadata", "store", "user")
_LIMITS = ("max_completion_tokens", "max_tokens")
_FINISHED = re.compile(rb'"finish_reason":\s*"(?:stop|tool_calls)"')
_CUT = re.compile(rb'"finish_reason":\s*"length"')


class Wish(Enum):
    """What a client, or the model's policy, wants of the cache."""

    ON = "on"
    REFRESH = "refresh"
    """A new answer, to be given again from then on."""
    OFF = "off"


class Store(Protocol):
    """Where answers are kept."""

    async def find(self, key: bytes) -> bytes | None:
        """Give an answer that is kept and not too old."""
        ...

    async def keep(self, key: bytes, answer: bytes, lifetime: timedelta) -> None:
        """Keep an answer in place of an older one."""
        ...


def header(headers: Mapping[bytes, bytes]) -> str:
    """Give what a client says of the cache; empty where it says nothing."""
    return headers.get(HEADER, b"").decode("latin-1")


def wish(admission: Admission, said: str) -> Wish:
    """Give what is wanted: as the request says, or else as the model's policy does."""
    if not said:
        return Wish.ON if admission.facts.get("cache") else Wish.OFF
    try:
        return Wish(said)
    except ValueError:
        raise InvalidRequest("The header x-cache is 'on', 'refresh' or 'off'.") from None


class ResponseCache:
    """Keeps the answers to deterministic requests, byte for byte: a stream is given again as a stream."""

    def __init__(self, store: Store, *, lifetime: timedelta) -> None:
        """Keep answers for `lifetime`, where the model's policy says nothing else."""
        self._store = store
        self._lifetime = lifetime

    def answer(
        self,
        admission: Admission,
        body: bytes,
        request: CompletionRequest,
        wanted: Wish,
        produced: Answer,
        settle: Callable[[Outcome], Awaitable[None]],
    ) -> Answer:
        """Give the answer that is kept, or else the one that is produced, and keep that.

        `body` is the request's as the client sent it. `settle` is told of an answer that was kept; who
        produces one settles it.
        """
        question = None if wanted is Wish.OFF else _question(admission, body)
        if question is None:
            return produced
        return replace(produced, chunks=self._chunks(question, admission, request, wanted, produced, settle))

    async def _chunks(
        self,
        question: "_Question",
        admission: Admission,
        request: CompletionRequest,
        wanted: Wish,
        produced: Answer,
        settle: Callable[[Outcome], Awaitable[None]],
    ) -> AsyncGenerator[bytes, None]:
        started = time.perf_counter()
        model = admission.facts.get("model", "")
        async with aclosing(produced.chunks) as chunks:
            kept = await self._store.find(question.key) if wanted is Wish.ON else None
            if kept is not None:
                REQUESTS.labels(model, "hit").inc()
                produced.headers["x-dozen-cache"] = "hit"
                await settle(_hit(admission, request, kept, time.perf_counter() - started))
                yield kept
                return
            REQUESTS.labels(model, "refreshed" if wanted is Wish.REFRESH else "miss").inc()
            produced.headers["x-dozen-cache"] = "miss"
            parts, size = [], 0
            async for chunk in chunks:
                size += len(chunk)
                if size <= MOST_BYTES:
                    parts.append(chunk)
                yield chunk
        answer = b"".join(parts)
        if size <= MOST_BYTES and _is_finished(answer, question, produced.stream):
            seconds = int(admission.facts.get("cache", 0))
            lifetime = timedelta(seconds=seconds) if seconds else self._lifetime
            await self._store.keep(question.key, answer, lifetime)


class _Question(NamedTuple):
    key: bytes
    """What the answer is kept under."""
    may_be_cut: bool
    """Whether the client itself limits the answer, and not what its balance allows."""


def _question(admission: Admission, body: bytes) -> _Question | None:
    """Give what a request asks; None where two answers to it may differ.

    The account is part of it, so that nobody can tell from the response time what another account asked.
    """
    fields: dict[str, Any] = msgspec.json.decode(body)
    if fields.get("temperature") != 0 and fields.get("seed") is None:
        return None
    for name in _NO_MATTER:
        fields.pop(name, None)
    asked = [admission.account, admission.operation, admission.facts.get("model", ""), fields]
    key = hashlib.sha256(msgspec.json.encode(asked, order="sorted")).digest()
    limits = [fields[name] for name in _LIMITS if isinstance(fields.get(name), int)]
    most = most_tokens(admission)
    return _Question(key, bool(limits) and (most is None or max(limits) <= most))


def _is_finished(answer: bytes, question: _Question, stream: bool) -> bool:
    """Tell whether an answer is whole; one that our limit has cut could be longer the next time."""
    if stream and not answer.rstrip().endswith(b"data: [DONE]"):
        return False
    # Inside a JSON text quotes are escaped, so what a model writes cannot look like one of these.
    return _FINISHED.search(answer) is not None or (question.may_be_cut and _CUT.search(answer) is not None)


def _hit(admission: Admission, request: CompletionRequest, answer: bytes, seconds: float) -> Outcome:
    return Outcome(
        admission=admission,
        stream=request.stream,
        status=200,
        ending="cached",
        seconds=seconds,
        first_byte_seconds=seconds,
        quantities={UNIT: 1},
        estimated=False,
        answer=b"" if request.stream else answer,
        error=None,
    )
