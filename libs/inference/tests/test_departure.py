"""Work stops when its client leaves."""

import asyncio
from typing import Any

import pytest

from dozen_inference.departure import ClientLeft, unless_client_leaves


class Connection:
    """The receiving side of an ASGI request whose client stays until told."""

    def __init__(self) -> None:
        self.left = asyncio.Event()

    async def receive(self) -> dict[str, Any]:
        await self.left.wait()
        return {"type": "http.disconnect"}


async def test_the_result_of_finished_work_is_given() -> None:
    async def work() -> int:
        return 7

    assert await unless_client_leaves(Connection().receive, work()) == 7


async def test_an_error_of_the_work_is_raised() -> None:
    async def work() -> None:
        raise KeyError("missing")

    with pytest.raises(KeyError):
        await unless_client_leaves(Connection().receive, work())


async def test_work_is_cancelled_when_the_client_leaves() -> None:
    connection = Connection()
    cancelled = asyncio.Event()

    async def work() -> None:
        try:
            connection.left.set()
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    with pytest.raises(ClientLeft):
        await unless_client_leaves(connection.receive, work())
    assert cancelled.is_set()
