"""Handlers of the events that the chat service takes."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from google.protobuf.message import Message

from dozen.jobs.v1.jobs_events_pb2 import TaskRequested
from dozen_chassis.events import Delivery
from dozen_chat.service.tasks import ChatWorker


async def on_task_requested(event: TaskRequested, delivery: Delivery, worker: ChatWorker) -> None:
    """Do a task of the work queue."""
    await worker.work(event, delivery)


HANDLERS: Mapping[type[Message], Callable[[Any, Delivery, Any], Awaitable[None]]] = {
    TaskRequested: on_task_requested,
}

TASKS = ".chat.>"
"""The end of the subjects of this service's tasks."""
