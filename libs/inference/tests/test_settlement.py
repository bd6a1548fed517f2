"""Requests that are followed: whatever they end in, one usage record says so."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

import httpx
import pytest
from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse
from starlette.middleware import Middleware

from dozen.credits.v1.credits_pb2 import UsageRecord
from dozen_chassis.admission import Admission
from dozen_chassis.errors import InvalidRequest
from dozen_chassis.http import Admitted, create_http
from dozen_chassis.outbox import GroupCommit
from dozen_inference.settlement import FollowedRequests, Settlements
from dozen_inference.usage import usage_record
from dozen_testing.conditions import eventually
from dozen_testing.http import Signer, serve
from dozen_testing.tasks import running

PRICED = {"price": "price-1", "reservation": "lease-1"}


@dataclass(frozen=True)
class Entry:
    """An entry of the log."""

    usage: UsageRecord | None


class Written(list[Entry]):
    """The log in memory."""

    async def put(self, entry: Entry) -> None:
        self.append(entry)

    @property
    def quantities(self) -> list[dict[str, int]]:
        return [dict(entry.usage.quantities) for entry in self if entry.usage]


@pytest.fixture
def written() -> Written:
    return Written()


@pytest.fixture
def settlements(written: Written) -> Settlements[Entry]:
    return Settlements(written.put, unused=Entry)


@pytest.fixture
def priced(admission: Admission) -> Admission:
    return replace(admission, facts=PRICED)


async def test_what_was_not_reported_was_not_used(
    settlements: Settlements[Entry], written: Written, priced: Admission
) -> None:
    async with settlements.follow(priced):
        assert not written
    ((record,),) = [[entry.usage for entry in written]]
    assert record is not None
    assert (record.request_id, record.account_id, record.lease_id) == ("req_1", "acme", "lease-1")
    assert dict(record.quantities) == {}


@pytest.mark.parametrize("error", [InvalidRequest, asyncio.CancelledError, ZeroDivisionError])
async def test_an_error_is_none_the_less_for_it(
    settlements: Settlements[Entry], written: Written, priced: Admission, error: type[BaseException]
) -> None:
    with pytest.raises(error):
        async with settlements.follow(priced):
            raise error
    assert written.quantities == [{}]


async def test_what_was_reported_is_not_reported_again(
    settlements: Settlements[Entry], written: Written, priced: Admission
) -> None:
    async def fail() -> None:
        async with settlements.follow(priced):
            await settlements.put(Entry(usage_record(priced, {"images": 1})))
            raise InvalidRequest()

    with pytest.raises(InvalidRequest):
        await fail()
    assert written.quantities == [{"images": 1}]


async def test_an_entry_without_usage_reports_nothing(
    settlements: Settlements[Entry], written: Written, priced: Admission
) -> None:
    async with settlements.follow(priced):
        await settlements.put(Entry(None))
    assert written.quantities == [{}]


async def test_the_report_of_one_request_is_not_that_of_another(
    settlements: Settlements[Entry], written: Written, priced: Admission
) -> None:
    other = replace(priced, request_id="req_2")
    async with settlements.follow(priced), settlements.follow(other):
        await settlements.put(Entry(usage_record(other, {"images": 1})))
    assert written.quantities == [{"images": 1}, {}]
    assert [entry.usage.request_id for entry in written if entry.usage] == ["req_2", "req_1"]


async def test_what_is_free_is_not_reported(
    settlements: Settlements[Entry], written: Written, admission: Admission
) -> None:
    async with settlements.follow(replace(admission, facts={"price": ""})):
        pass
    assert not written


async def test_a_request_that_is_cancelled_while_it_is_reported_is_reported_once(
    written: Written, priced: Admission
) -> None:
    writing, allowed = asyncio.Event(), asyncio.Event()

    async def write(entries: list[Entry]) -> None:
        writing.set()
        await allowed.wait()
        written.extend(entries)

    commits: GroupCommit[Entry] = GroupCommit(write)
    settlements: Settlements[Entry] = Settlements(commits.put, unused=Entry)

    async def serve_one() -> None:
        async with settlements.follow(priced):
            await settlements.put(Entry(usage_record(priced, {"images": 1})))

    async with running(commits.run()):
        serving = asyncio.create_task(serve_one())
        async with asyncio.timeout(5):
            await writing.wait()
            serving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await serving
        allowed.set()
    assert written.quantities == [{"images": 1}]


@pytest.fixture
async def url(settlements: Settlements[Entry], signer: Signer) -> AsyncIterator[str]:
    """A service whose routes use an image, or fail."""
    router = APIRouter()

    @router.post("/v1/used")
    async def used(admission: Admitted, wanted: dict[str, int]) -> None:
        await settlements.put(Entry(usage_record(admission, wanted)))

    @router.post("/v1/broken")
    async def broken() -> None:
        raise ZeroDivisionError

    @router.post("/v1/stream")
    async def stream(admission: Admitted, request: Request) -> StreamingResponse:
        async def pieces() -> AsyncIterator[bytes]:
            yield b"one"
            await settlements.put(Entry(usage_record(admission, {"characters": 3})))
            raise ZeroDivisionError

        return StreamingResponse(pieces())

    app = create_http(
        "test",
        [router],
        admission_key=signer.key,
        max_body_bytes=100,
        middleware=[Middleware(FollowedRequests, settlements=settlements)],
    )
    async with serve(app) as url:
        yield url


@pytest.mark.parametrize(
    ("path", "content", "status", "quantities"),
    [
        ("/v1/used", b'{"images": 1}', 200, {"images": 1}),
        ("/v1/used", b'{"images": "many"}', 400, {}),
        ("/v1/used", b'{"images"', 400, {}),
        ("/v1/used", b" " * 101, 413, {}),
        ("/v1/broken", b"", 500, {}),
        ("/v1/nothing", b"", 404, {}),
        ("/v1/stream", b"", 200, {"characters": 3}),
    ],
)
async def test_every_answer_has_its_record(
    url: str,
    signer: Signer,
    written: Written,
    path: str,
    content: bytes,
    status: int,
    quantities: dict[str, int],
) -> None:
    held = replace(signer, facts=PRICED)
    headers = held.headers(f"POST {path}") | {"content-type": "application/json"}
    async with (
        httpx.AsyncClient(base_url=url) as client,
        client.stream("POST", path, content=content, headers=headers) as answer,
    ):
        assert answer.status_code == status

    async def reported() -> list[dict[str, int]]:
        return written.quantities

    assert await eventually(reported) == [quantities]  # after the answer, which does not wait for it


async def test_what_is_not_admitted_is_not_followed(url: str, written: Written, signer: Signer) -> None:
    async with httpx.AsyncClient(base_url=url) as client:
        assert (await client.post("/v1/used")).status_code == 401
        assert (await client.get("/elsewhere")).status_code == 404
        headers = signer.headers("POST /v1/broken")  # admitted, and free
        assert (await client.post("/v1/broken", headers=headers)).status_code == 500
    assert not written
