"""The answer of `/v1/audio/speech`, whose client leaves while a piece is sent."""

import asyncio
from collections.abc import AsyncGenerator

from starlette.types import Message

from dozen_audio.routes import _Sound


async def test_the_end_of_an_answer_is_the_end_of_the_speaking() -> None:
    sending, ended = asyncio.Event(), asyncio.Event()

    async def speak() -> AsyncGenerator[bytes, None]:
        try:
            yield b"one"
            yield b"two"
        finally:
            await asyncio.sleep(0)  # as if it were charged
            ended.set()

    async def send(message: Message) -> None:
        if message.get("body") == b"two":
            sending.set()
            await asyncio.Event().wait()

    async def receive() -> Message:
        await sending.wait()
        return {"type": "http.disconnect"}

    pieces = speak()
    sound = _Sound(await anext(pieces), pieces, "audio/mpeg")
    async with asyncio.timeout(5):
        await sound({"type": "http"}, receive, send)
    assert ended.is_set()
