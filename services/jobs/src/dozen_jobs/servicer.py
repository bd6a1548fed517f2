"""gRPC servicer of the jobs service."""

import grpc.aio

from dozen.jobs.v1 import jobs_pb2
from dozen.jobs.v1.jobs_service_pb2 import (
    GetTaskRequest,
    GetTaskResponse,
    SubmitTaskRequest,
    SubmitTaskResponse,
)
from dozen.jobs.v1.jobs_service_pb2_grpc import JobsServiceServicer
from dozen_jobs.domain.submissions import Priority, Submission
from dozen_jobs.service.jobs import JobsService
from dozen_jobs.service.messages import state, task, task_error

_PRIORITIES = {
    jobs_pb2.PRIORITY_HIGH: Priority.HIGH,
    jobs_pb2.PRIORITY_LOW: Priority.LOW,
}


class JobsServicer(JobsServiceServicer):
    """Serves `dozen.jobs.v1.JobsService`."""

    def __init__(self, jobs: JobsService) -> None:
        self._jobs = jobs

    async def SubmitTask(
        self, request: SubmitTaskRequest, context: grpc.aio.ServicerContext
    ) -> SubmitTaskResponse:
        wanted = request.task
        submission = Submission(
            task_type=wanted.type,
            parameters=wanted.parameters,
            priority=_PRIORITIES.get(wanted.priority, Priority.STANDARD),
            callback_url=wanted.callback_url or None,
            **{
                name: getattr(wanted, name)
                for name in ("max_retries", "timeout_seconds")
                if wanted.HasField(name)
            },
        )
        job, payload = await self._jobs.submit(
            wanted.account_id, wanted.key_id, submission, request.idempotency_key or None
        )
        return SubmitTaskResponse(task=task(job, payload.parameters))

    async def GetTask(self, request: GetTaskRequest, context: grpc.aio.ServicerContext) -> GetTaskResponse:
        job, payload = await self._jobs.get(request.account_id, request.task_id)
        response = GetTaskResponse(
            task=task(job, payload.parameters),
            state=state(job.status),
            attempts=job.attempts,
            result=payload.result or b"",
            error=task_error(job.error),
        )
        if job.finished_at is not None:
            response.finished_at.FromDatetime(job.finished_at)
        return response
