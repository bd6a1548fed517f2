"""HTTP routes of the jobs service."""

from dataclasses import replace
from typing import Annotated, Literal

from fastapi import APIRouter, Header, Query, Response

from dozen_chassis.http import Admitted
from dozen_jobs.domain.jobs import Selection, Status
from dozen_jobs.schemas import JobRequest, job_response, list_response
from dozen_jobs.service.jobs import JobsService

_JSON = "application/json"


def router(jobs: JobsService) -> APIRouter:
    """Serve `/v1/jobs`."""
    routes = APIRouter()

    @routes.post("/v1/jobs")
    async def submit_job(
        body: JobRequest, admission: Admitted, idempotency_key: Annotated[str | None, Header()] = None
    ) -> Response:
        submitted = await jobs.submit(admission.account, admission.key, body.submission(), idempotency_key)
        return Response(job_response(*submitted), media_type=_JSON)

    @routes.get("/v1/jobs")
    async def list_jobs(
        admission: Admitted,
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
        after: Annotated[str | None, Query(max_length=100)] = None,
        order: Literal["asc", "desc"] = "desc",
        status: Status | None = None,
        task_type: Annotated[str | None, Query(pattern=r"^[a-z.]{1,100}$")] = None,
    ) -> Response:
        selection = Selection(limit, after, order == "desc", status, task_type)
        found = await jobs.page(admission.account, replace(selection, limit=limit + 1))
        return Response(list_response(found[:limit], has_more=len(found) > limit), media_type=_JSON)

    @routes.get("/v1/jobs/{job_id}")
    async def get_job(job_id: str, admission: Admitted) -> Response:
        return Response(job_response(*await jobs.get(admission.account, job_id)), media_type=_JSON)

    @routes.post("/v1/jobs/{job_id}/cancel")
    async def cancel_job(job_id: str, admission: Admitted) -> Response:
        return Response(job_response(*await jobs.cancel(admission.account, job_id)), media_type=_JSON)

    return routes
