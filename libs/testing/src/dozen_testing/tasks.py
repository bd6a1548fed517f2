"""Background work in tests."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from dozen_chassis.tasks import end


@asynccontextmanager
async def running(work: Coroutine[Any, Any, None]) -> AsyncIterator["asyncio.Task[None]"]:
    """Run work beside the block; cancel it at the end, and wait until it has ended."""
    task = asyncio.create_task(work)
    try:
        yield task
    finally:
        await end(task)
