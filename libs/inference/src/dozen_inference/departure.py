"""Work that nobody waits for any more is stopped."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from dozen_chassis.errors import ServiceError, Status

Result = TypeVar("Result")
Receive = Callable[[], Awaitable[Any]]


class ClientLeft(ServiceError):
    """The client closed the connection before the answer was ready."""

    status = Status.CANCELLED
    code = "client_left"


async def unless_client_leaves(receive: Receive, work: Coroutine[Any, Any, Result]) -> Result:
    """Give the result of some work; cancel it when the client of the ASGI request leaves.

    The request's body must have been read to its end.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_departure(receive))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise ClientLeft()
    finally:
        working.cancel()
        leaving.cancel()
        await asyncio.wait((working, leaving))


async def _departure(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
