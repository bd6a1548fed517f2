"""The load: calls of many kinds, of accounts with much and with little, some of whose clients leave."""

import asyncio
import io
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.util import find_spec
from random import Random
from typing import Any

import aiohttp

from chaos.facts import Call
from journey import CHAT_MODEL, Account

CALL_SECONDS = 60.0
WORKERS = 8
EVENTS_READ = 3
"""Of a stream whose client leaves."""
TEXTS = 50
"""Different texts to embed: most are remembered, so that calls are many and cheap."""

Send = Callable[["Load", Account, Random], Awaitable[Call]]


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of call, and how often it is made."""

    name: str
    weight: float
    send: Send
    needs: str = "json"
    """The package without which its model is not there."""


class Load:
    """Calls without end, a few at once, at a rate."""

    def __init__(self, url: str, accounts: Sequence[Account], *, rate: float, draw: Random) -> None:
        self.calls: list[Call] = []
        self.dry: set[str] = set()
        """Accounts that were refused for want of credits."""
        self._url = url
        self._accounts = accounts
        self._pause = WORKERS / rate
        self._draw = draw
        self._stopping = asyncio.Event()
        self._kinds = [kind for kind in KINDS if find_spec(kind.needs)]

    def stop(self) -> None:
        """Begin no further call."""
        self._stopping.set()

    async def run(self) -> None:
        """Call until stopped, and let what runs come to its end."""
        timeout = aiohttp.ClientTimeout(total=CALL_SECONDS)
        async with aiohttp.ClientSession(self._url, timeout=timeout) as self._session:
            await asyncio.gather(*(self._work(Random(self._draw.random())) for _ in range(WORKERS)))

    def outcomes(self) -> str:
        """Say how many calls there were, by their status."""
        counts = Counter(call.status for call in self.calls)
        return ", ".join(f"{status or 'no answer'}: {count}" for status, count in sorted(counts.items()))

    async def post(
        self,
        account: Account,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        form: Callable[[], aiohttp.FormData] | None = None,
        events: int | None = None,
    ) -> Call:
        """Make a call, and leave its stream after so many events where that is said."""
        call = Call(account.id, f"POST {path}")
        headers = {"authorization": f"Bearer {account.key}"}
        data = form() if form else None
        try:
            async with self._session.post(path, json=body, data=data, headers=headers) as answer:
                call = replace(call, request_id=answer.headers.get("x-request-id", ""), status=answer.status)
                whole = await _read(answer, events)
                return replace(call, acknowledged=whole and answer.ok)
        except aiohttp.ClientConnectorError:
            return replace(call, sent=False)
        except (aiohttp.ClientError, TimeoutError):
            return call

    async def _work(self, draw: Random) -> None:
        weights = [kind.weight for kind in self._kinds]
        while not self._stopping.is_set():
            (kind,) = draw.choices(self._kinds, weights)
            account = draw.choice(self._accounts)
            call = await kind.send(self, account, draw)
            self.calls.append(call)
            if call.status == 429:
                self.dry.add(account.id)
            await pause(self._stopping, draw.expovariate(1 / self._pause))


async def pause(ended: asyncio.Event, seconds: float) -> bool:
    """Wait for an end, but no longer than so many seconds; tell whether it came."""
    try:
        async with asyncio.timeout(seconds):
            return await ended.wait()
    except TimeoutError:
        return False


async def _read(answer: aiohttp.ClientResponse, events: int | None) -> bool:
    """Read an answer to its end, or so many events of it; tell whether it came whole."""
    if answer.content_type != "text/event-stream":
        await answer.read()
        return True
    ended = False
    async for line in answer.content:
        ended = ended or line.startswith(b"data: [DONE]")
        if events is not None and line.startswith(b"data:"):
            events -= 1
            if events <= 0 and not ended:
                answer.close()
                return False
    return ended


def _text(draw: Random) -> str:
    return f"A text to embed, of which there are {TEXTS}; this is number {draw.randrange(TEXTS)}."


async def _embed(load: Load, account: Account, draw: Random) -> Call:
    texts = [_text(draw) for _ in range(draw.randint(1, 3))]
    return await load.post(account, "/v1/embeddings", body={"model": "all-minilm-l6-v2", "input": texts})


def _chat(draw: Random, **more: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": f"Count from {draw.randrange(1000)} on."}]
    return {"model": CHAT_MODEL, "messages": messages, "max_tokens": draw.randint(1, 12), **more}


async def _chat_whole(load: Load, account: Account, draw: Random) -> Call:
    return await load.post(account, "/v1/chat/completions", body=_chat(draw))


async def _chat_streamed(load: Load, account: Account, draw: Random) -> Call:
    return await load.post(account, "/v1/chat/completions", body=_chat(draw, stream=True))


async def _chat_left(load: Load, account: Account, draw: Random) -> Call:
    body = _chat(draw, stream=True) | {"max_tokens": 200}
    return await load.post(account, "/v1/chat/completions", body=body, events=EVENTS_READ)


async def _speak(load: Load, account: Account, draw: Random) -> Call:
    body = {"model": "hibari", "voice": "alloy", "input": "Hello.", "response_format": "wav"}
    return await load.post(account, "/v1/audio/speech", body=body)


async def _read_image(load: Load, account: Account, draw: Random) -> Call:
    def form() -> aiohttp.FormData:
        fields = aiohttp.FormData({"model": "pp-ocrv6"})
        fields.add_field("image", _picture(), filename="picture.png", content_type="image/png")
        return fields

    return await load.post(account, "/v1/images/analyses", form=form)


@cache
def _picture() -> bytes:
    from PIL import Image  # there where the model is

    png = io.BytesIO()
    Image.new("RGB", (64, 32), "white").save(png, "PNG")
    return png.getvalue()


KINDS = (
    Kind("embeddings", 70, _embed),
    Kind("chat", 12, _chat_whole),
    Kind("streamed chat", 10, _chat_streamed),
    Kind("chat whose client leaves", 5, _chat_left),
    Kind("speech", 2, _speak, needs="hibari"),
    Kind("image", 1, _read_image, needs="rapidocr"),
)
