"""Tasks that end when they are told to."""

import asyncio
from typing import Any


async def end(*tasks: "asyncio.Future[Any]", patience: float = 5) -> None:
    """Cancel tasks and wait until all have ended; tell them again every `patience` seconds.

    Once may not be enough: `asyncio.wait_for` of Python 3.11, which NATS's client stands on, loses a
    cancellation that comes just as what it waits for is done (python/cpython#86296).
    """
    while running := [task for task in tasks if not task.done()]:
        for task in running:
            task.cancel()
        await asyncio.wait(running, timeout=patience)
