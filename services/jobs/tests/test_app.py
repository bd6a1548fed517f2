"""The whole service: HTTP and gRPC, the real database and NATS, and a gateway on a real port."""

import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import grpc.aio
import httpx
import nats
import pytest
from nats.aio.client import Client

from dozen.gateway.v1 import gateway_service_pb2
from dozen.gateway.v1.gateway_pb2 import Admission, Rejection
from dozen.gateway.v1.gateway_service_pb2 import Admitted, DecideRequest, DecideResponse
from dozen.gateway.v1.gateway_service_pb2_grpc import (
    GatewayServiceServicer,
    add_GatewayServiceServicer_to_server,
)
from dozen.jobs.v1.jobs_events_pb2 import TaskFinished, TaskReported, TaskRequested
from dozen.jobs.v1.jobs_pb2 import Priority, Task, TaskError, TaskState
from dozen.jobs.v1.jobs_service_pb2 import GetTaskRequest, SubmitTaskRequest
from dozen.jobs.v1.jobs_service_pb2_grpc import JobsServiceStub
from dozen_chassis import admission
from dozen_chassis.grpc import GrpcService, RemoteError, open_channel, remote_errors, start_grpc
from dozen_chassis.run import serving
from dozen_chassis.signing import caller_token
from dozen_jobs.app import create_app
from dozen_jobs.settings import Settings
from dozen_local.nats import NatsServer
from dozen_testing.http import Signer

if TYPE_CHECKING:
    from dozen.jobs.v1.jobs_service_pb2_grpc import JobsServiceAsyncStub  # in the stub file only

pytestmark = pytest.mark.integration

OPERATION = "POST /v1/chat/completions"
HELLO = {"task_type": "chat.completions", "parameters": {"model": "m", "messages": [], "max_tokens": 5}}
BROKE = Rejection(
    http_status=429,
    type="insufficient_quota",
    code="insufficient_quota",
    message="You have no credits.",
    headers={"x-should-retry": "false"},
)


TOO_FAST = Rejection(
    http_status=429,
    type="requests",
    code="rate_limit_exceeded",
    message="Rate limit reached.",
    headers={
        "retry-after": "7",
        "retry-after-ms": "6500",
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": "6.5s",
    },
)
NO_CREDITS_SERVICE = Rejection(
    http_status=503,
    type="server_error",
    code="credits_unavailable",
    message="Credits cannot be reserved at the moment.",
    headers={"retry-after": "2"},
)
REFUSED = {"dear": BROKE, "busy": TOO_FAST, "dark": NO_CREDITS_SERVICE}


class FakeGateway(GatewayServiceServicer):
    """Admits requests to chat, unless the model is one that is refused."""

    def __init__(self) -> None:
        self.chat = Signer(secrets.token_bytes(32), facts={"model": "m", "price": "price-1"})
        self.given: list[dict[str, str]] = []

    async def Decide(  # noqa: N802
        self, request: DecideRequest, context: grpc.aio.ServicerContext[DecideRequest, DecideResponse]
    ) -> DecideResponse:
        if rejection := REFUSED.get(request.facts.model):
            return DecideResponse(rejection=rejection)
        headers = self.chat.headers(
            f"{request.facts.method} {request.facts.path}",
            request_id=request.request_id,
            expires_in=request.time_to_live.ToTimedelta().total_seconds(),
        )
        self.given.append(headers)
        return DecideResponse(admitted=Admitted(service="chat", admission=Admission(headers=headers)))


@dataclass
class Stage:
    """The service with everything around it."""

    gateway: FakeGateway
    client: httpx.AsyncClient
    stub: "JobsServiceAsyncStub"
    stranger: httpx.AsyncClient
    """A client of another account."""


def admitted_client(url: str, signer: Signer) -> httpx.AsyncClient:
    async def admit(request: httpx.Request) -> None:
        request.headers.update(signer.headers(f"{request.method} {request.url.path}"))

    return httpx.AsyncClient(base_url=url, event_hooks={"request": [admit]})


@pytest.fixture
async def stage(base_settings: dict[str, Any], signer: Signer, nats_client: Client) -> AsyncIterator[Stage]:
    key, gateway = secrets.token_bytes(32), FakeGateway()  # type: ignore[abstract]  # the rest is not called
    service = GrpcService(gateway_service_pb2.DESCRIPTOR, add_GatewayServiceServicer_to_server, gateway)
    server, port = await start_grpc("127.0.0.1", 0, key, [service])
    settings = Settings(
        **base_settings, gateway_address=f"127.0.0.1:{port}", gateway_token=caller_token(key, "jobs")
    )
    token = caller_token(bytes.fromhex(base_settings["grpc_key"]), "test")
    async with serving("jobs", create_app, settings) as running:
        url = f"http://127.0.0.1:{running.http_port}"
        async with (
            admitted_client(url, signer) as client,
            admitted_client(url, replace(signer, account="other")) as stranger,
            open_channel(f"127.0.0.1:{running.grpc_port}", token) as channel,
        ):
            yield Stage(gateway, client, JobsServiceStub(channel), stranger)
    await server.stop(grace=None)


@asynccontextmanager
async def chat_worker(nats_server: NatsServer) -> AsyncIterator[Client]:
    client = await nats.connect(nats_server.url("chat"), inbox_prefix=b"_INBOX_chat")
    yield client
    await client.close()


async def test_a_job_goes_to_a_worker_and_its_result_comes_back(
    stage: Stage, nats_client: Client, nats_server: NatsServer
) -> None:
    requests = await nats_client.subscribe("dozen.jobs.v1.TaskRequested.>")
    ends = await nats_client.subscribe("dozen.jobs.v1.TaskFinished")
    await nats_client.flush()
    answer = await stage.client.post("/v1/jobs", json={**HELLO, "priority": "high"})
    assert answer.status_code == 200
    job = answer.json()
    assert (job["object"], job["status"], job["attempts"]) == ("job", "queued", 0)
    assert (job["parameters"], job["result"], job["error"]) == (HELLO["parameters"], None, None)
    assert (job["started_at"], job["finished_at"]) == (None, None)
    assert 0 <= time.time() - job["created_at"] < 60

    message = await requests.next_msg(timeout=10)
    assert message.subject == "dozen.jobs.v1.TaskRequested.chat.completions.high"
    event = TaskRequested.FromString(message.data)
    assert event.task.id == job["id"]
    assert dict(event.admission.headers) == stage.gateway.given[0]
    chat = stage.gateway.chat
    tomorrow = time.time() + 23 * 3600
    admitted = admission.verify(event.admission.headers, OPERATION, chat.key, tomorrow)
    assert (admitted.account, admitted.facts) == ("acme", {"model": "m", "price": "price-1"})

    async with chat_worker(nats_server) as worker:
        report = TaskReported(task_id=job["id"], state=TaskState.TASK_STATE_RUNNING, attempt=1)
        report.reported_at.GetCurrentTime()
        jetstream = worker.jetstream()
        await jetstream.publish("dozen.jobs.v1.TaskReported", report.SerializeToString())
        report.state, report.result = TaskState.TASK_STATE_SUCCEEDED, b'{"id":"chatcmpl-1","choices":[]}'
        for _ in range(2):
            await jetstream.publish("dozen.jobs.v1.TaskReported", report.SerializeToString())
        finished = TaskFinished.FromString((await ends.next_msg(timeout=10)).data)
    assert (finished.task_id, finished.account_id) == (job["id"], "acme")
    assert finished.state == TaskState.TASK_STATE_SUCCEEDED

    done = (await stage.client.get(f"/v1/jobs/{job['id']}")).json()
    assert (done["status"], done["attempts"]) == ("succeeded", 1)
    assert done["result"] == {"id": "chatcmpl-1", "choices": []}
    assert done["started_at"] <= done["finished_at"]
    response = await stage.stub.GetTask(GetTaskRequest(account_id="acme", task_id=job["id"]))
    assert (response.state, response.attempts) == (TaskState.TASK_STATE_SUCCEEDED, 1)
    assert response.result == report.result
    assert response.finished_at == report.reported_at


async def test_a_failure_is_told_in_openais_terms(
    stage: Stage, nats_client: Client, nats_server: NatsServer
) -> None:
    requests = await nats_client.subscribe("dozen.jobs.v1.TaskRequested.>")
    ends = await nats_client.subscribe("dozen.jobs.v1.TaskFinished")
    await nats_client.flush()
    job = (await stage.client.post("/v1/jobs", json=HELLO)).json()
    await requests.next_msg(timeout=10)
    error = TaskError(type="invalid_request_error", code="context_length_exceeded", message="Too long.")
    report = TaskReported(task_id=job["id"], state=TaskState.TASK_STATE_FAILED, attempt=1, error=error)
    async with chat_worker(nats_server) as worker:
        await worker.jetstream().publish("dozen.jobs.v1.TaskReported", report.SerializeToString())
        assert TaskFinished.FromString((await ends.next_msg(timeout=10)).data).error == error
    failed = (await stage.client.get(f"/v1/jobs/{job['id']}")).json()
    assert (failed["status"], failed["result"]) == ("failed", None)
    assert failed["error"] == {
        "type": "invalid_request_error",
        "code": "context_length_exceeded",
        "message": "Too long.",
        "param": None,
    }


@pytest.mark.parametrize("model", REFUSED)
async def test_the_gateways_refusal_is_the_clients_answer(stage: Stage, model: str) -> None:
    refused = REFUSED[model]
    wanted = {"task_type": "chat.completions", "parameters": {"model": model}}
    answer = await stage.client.post("/v1/jobs", json=wanted)
    assert answer.status_code == refused.http_status
    assert dict(refused.headers).items() <= dict(answer.headers).items()
    assert answer.json()["error"] == {
        "message": refused.message,
        "type": refused.type,
        "param": None,
        "code": refused.code,
    }
    assert (await stage.client.get("/v1/jobs")).json()["data"] == []


async def test_an_invalid_body_is_refused(stage: Stage) -> None:
    cases: list[tuple[dict[str, object], str, str]] = [
        ({"task_type": "chat.poems"}, "task_type", "unknown_task_type"),
        ({"task_type": "a\0"}, "task_type", "unknown_task_type"),
        ({"priority": "urgent"}, "priority", "invalid_request"),
        ({"parameters": "none"}, "parameters", "invalid_request"),
        ({"parameters": {"model": "m", "stream": True}}, "parameters.stream", "invalid_job"),
        ({"max_retries": 10**30}, "max_retries", "invalid_job"),
        ({"timeout_seconds": 0}, "timeout_seconds", "invalid_job"),
        ({"callback_url": "a\0"}, "callback_url", "invalid_job"),
    ]
    for change, param, code in cases:
        answer = await stage.client.post("/v1/jobs", json={**HELLO, **change})
        error = answer.json()["error"]
        assert (answer.status_code, error["param"], error["code"]) == (400, param, code), change
    for value in (b"NaN", b'"\\ud800"'):
        body = b'{"task_type": "chat.completions", "parameters": {"model": "m", "user": %b}}' % value
        headers = {"content-type": "application/json"}
        answer = await stage.client.post("/v1/jobs", content=body, headers=headers)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "parameters"), value


async def test_a_key_makes_a_submission_repeatable(stage: Stage) -> None:
    headers = {"Idempotency-Key": "k"}
    answers = [await stage.client.post("/v1/jobs", json=HELLO, headers=headers) for _ in range(2)]
    assert answers[0].json() == answers[1].json()
    other = await stage.client.post("/v1/jobs", json={**HELLO, "max_retries": 0}, headers=headers)
    assert (other.status_code, other.headers["x-should-retry"]) == (409, "false")
    assert other.json()["error"]["code"] == "idempotency_key_reused"


async def test_jobs_are_listed_read_and_cancelled_by_their_account_only(stage: Stage) -> None:
    jobs = [(await stage.client.post("/v1/jobs", json=HELLO)).json() for _ in range(3)]
    page = (await stage.client.get("/v1/jobs?limit=2&order=asc")).json()
    assert [item["id"] for item in page["data"]] == [job["id"] for job in jobs[:2]]
    assert (page["object"], page["has_more"]) == ("list", True)
    assert (page["first_id"], page["last_id"]) == (jobs[0]["id"], jobs[1]["id"])
    assert not {"parameters", "result"} & page["data"][0].keys()
    rest = (await stage.client.get(f"/v1/jobs?order=asc&after={page['last_id']}")).json()
    assert ([item["id"] for item in rest["data"]], rest["has_more"]) == ([jobs[2]["id"]], False)

    path = f"/v1/jobs/{jobs[0]['id']}"
    for answer in (await stage.stranger.get(path), await stage.stranger.post(f"{path}/cancel")):
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "job_not_found")
    assert (await stage.stranger.get("/v1/jobs")).json()["first_id"] is None
    cancelled = await stage.client.post(f"{path}/cancel")
    assert (cancelled.status_code, cancelled.json()["status"]) == (200, "cancelled")
    again = await stage.client.post(f"{path}/cancel")
    assert (again.status_code, again.json()["error"]["code"]) == (409, "job_already_finished")
    found = (await stage.client.get("/v1/jobs?status=cancelled&task_type=chat.completions")).json()
    assert [item["id"] for item in found["data"]] == [jobs[0]["id"]]


async def test_an_address_that_names_nothing_is_refused(stage: Stage) -> None:
    for path, status in [
        ("/v1/jobs/job_1", 404),
        ("/v1/jobs?after=a%00", 404),
        ("/v1/jobs?task_type=a%00", 400),
        ("/v1/jobs?status=lost", 400),
        ("/v1/jobs?order=random", 400),
        ("/v1/jobs?limit=0", 400),
        ("/v1/jobs?limit=101", 400),
    ]:
        answer = await stage.client.get(path)
        assert answer.status_code == status, path
        assert answer.json()["error"].keys() == {"message", "type", "param", "code"}


async def test_a_request_that_the_gateway_did_not_admit_is_refused(stage: Stage) -> None:
    async with httpx.AsyncClient(base_url=stage.client.base_url) as anybody:
        assert (await anybody.get("/v1/jobs")).status_code == 401


async def test_other_services_submit_tasks_and_see_how_they_stand(stage: Stage) -> None:
    wanted = Task(
        account_id="acme",
        key_id="key1",
        type="chat.completions",
        priority=Priority.PRIORITY_LOW,
        parameters=b'{"model": "m"}',
        max_retries=0,
    )
    request = SubmitTaskRequest(task=wanted, idempotency_key="k")
    task = (await stage.stub.SubmitTask(request)).task
    assert (task.max_retries, task.timeout_seconds, task.priority) == (0, 120, Priority.PRIORITY_LOW)
    assert (await stage.stub.SubmitTask(request)).task == task
    found = await stage.stub.GetTask(GetTaskRequest(account_id="acme", task_id=task.id))
    assert (found.task, found.state, found.result) == (task, TaskState.TASK_STATE_QUEUED, b"")
    assert not found.HasField("finished_at")
    assert (await stage.client.get(f"/v1/jobs/{task.id}")).json()["max_retries"] == 0


async def test_grpc_tells_what_is_wrong(stage: Stage) -> None:
    wanted = Task(account_id="acme", key_id="key1", type="chat.completions", parameters=b"{")
    with pytest.raises(RemoteError) as invalid, remote_errors():
        await stage.stub.SubmitTask(SubmitTaskRequest(task=wanted))
    assert invalid.value.code == "invalid_job"
    wanted.parameters = b'{"model": "dear"}'
    with pytest.raises(RemoteError) as refused, remote_errors():
        await stage.stub.SubmitTask(SubmitTaskRequest(task=wanted))
    assert (refused.value.code, refused.value.http.status) == ("insufficient_quota", 429)
    with pytest.raises(RemoteError) as missing, remote_errors():
        await stage.stub.GetTask(GetTaskRequest(account_id="other", task_id="job_1"))
    assert missing.value.code == "job_not_found"
