"""Chat completions that were queued as tasks."""

import time

from dozen.jobs.v1.jobs_events_pb2 import TaskReported, TaskRequested
from dozen.jobs.v1.jobs_pb2 import (
    TASK_STATE_FAILED,
    TASK_STATE_RUNNING,
    TASK_STATE_SUCCEEDED,
    TaskError,
    TaskState,
)
from dozen_chassis import admission
from dozen_chassis.admission import Admission
from dozen_chassis.errors import TRANSIENT, ServiceError
from dozen_chassis.events import Delivery
from dozen_chat.errors import UnknownTaskType
from dozen_chat.service.completions import OPERATION
from dozen_chat.service.log import Entry, Log, Requests
from dozen_inference.filter import ContentFilter, is_filtered
from dozen_inference.generation import Generator
from dozen_inference.hold import is_capped, is_priced, most_tokens
from dozen_inference.outcome import Outcome
from dozen_inference.request import prepare
from dozen_inference.usage import usage_record

TASK_TYPE = "chat.completions"


class ChatWorker:
    """Answers chat completions that were queued as tasks."""

    def __init__(
        self,
        generator: Generator,
        content_filter: ContentFilter,
        requests: Requests,
        log: Log,
        *,
        admission_key: bytes,
        most_choices: int,
    ) -> None:
        self._generator = generator
        self._content_filter = content_filter
        self._requests = requests
        self._log = log
        self._admission_key = admission_key
        self._most_choices = most_choices

    async def work(self, requested: TaskRequested, delivery: Delivery) -> None:
        """Do a task and report on it; raise where it should be tried again."""
        if await self._requests.is_handled(delivery.id):
            return
        task = requested.task
        admitted: Admission | None = None
        try:
            admitted = admission.verify(
                requested.admission.headers, OPERATION, self._admission_key, time.time()
            )
            if task.type != TASK_TYPE:
                raise UnknownTaskType(f"The chat service does not do tasks of the type '{task.type}'.")
            request = prepare(
                task.parameters,
                "messages",
                most_choices=self._most_choices,
                most_tokens=most_tokens(admitted),
                is_capped=is_capped(admitted),
                may_stream=False,
            )
        except ServiceError as error:
            unused = usage_record(admitted, {}) if admitted and is_priced(admitted) else None
            report = _report(task.id, delivery, TASK_STATE_FAILED, error=error)
            await self._log.put(Entry(unused, report=report, delivery_id=delivery.id))
            return
        await self._requests.emit(_report(task.id, delivery, TASK_STATE_RUNNING))
        ended: Outcome | None = None

        async def settle(outcome: Outcome) -> None:
            nonlocal ended
            ended = outcome

        answer = self._generator.answer(admitted, request, settle, seconds=task.timeout_seconds or None)
        if is_filtered(admitted):
            answer = self._content_filter.answer(admitted, task.parameters, answer)
        try:
            # What the filter leaves of it is known here alone, so all is written here, at once.
            result = b"".join([chunk async for chunk in answer.chunks])
            report = _report(task.id, delivery, TASK_STATE_SUCCEEDED, result=result)
        except ServiceError as error:
            if delivery.attempt <= task.max_retries and error.status in TRANSIENT:
                if ended is not None:
                    await self._log.put(Entry(None, ended))
                raise
            report = _report(task.id, delivery, TASK_STATE_FAILED, error=error)
        if ended is not None:
            used = ended.usage_record()
        else:  # never sent anywhere
            used = usage_record(admitted, {}) if is_priced(admitted) else None
        await self._log.put(Entry(used, ended, report, delivery.id))


def _report(
    task_id: str,
    delivery: Delivery,
    state: "TaskState.ValueType",
    *,
    result: bytes = b"",
    error: ServiceError | None = None,
) -> TaskReported:
    report = TaskReported(task_id=task_id, state=state, attempt=delivery.attempt, result=result)
    if error is not None:
        report.error.CopyFrom(TaskError(type=error.http.type, code=error.code or "", message=error.message))
    report.reported_at.GetCurrentTime()
    return report
