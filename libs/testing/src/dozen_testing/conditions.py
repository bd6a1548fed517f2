"""Waiting for what will be, instead of for a time."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

Result = TypeVar("Result")

_LOOK_AGAIN_SECONDS = 0.05


async def eventually(look: Callable[[], Awaitable[Result]], seconds: float = 15) -> Result:
    """Look again and again; return the first result that is true, fail with the last one that was not."""
    deadline = time.monotonic() + seconds
    while not (result := await look()):
        assert time.monotonic() < deadline, f"still {result!r} after {seconds} s"
        await asyncio.sleep(_LOOK_AGAIN_SECONDS)
    return result
