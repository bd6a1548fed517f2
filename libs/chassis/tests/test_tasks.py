"""Ending tasks, also those that lose a cancellation."""

import asyncio

from dozen_chassis.tasks import end


async def test_a_task_that_loses_a_cancellation_is_told_again() -> None:
    lost = asyncio.Event()

    async def deaf() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            lost.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(deaf())
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await end(task, patience=0.01)
    assert lost.is_set()
    assert task.cancelled()


async def test_tasks_that_ended_are_left_alone() -> None:
    async def work() -> int:
        return 7

    task = asyncio.create_task(work())
    await task
    await end(task)
    assert task.result() == 7
