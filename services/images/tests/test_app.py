"""The whole service: the real model, the real database and NATS, called over HTTP and gRPC."""

import io
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

import httpx
import pytest
from nats.aio.client import Client
from nats.js import JetStreamContext
from PIL import Image, ImageDraw, ImageFont

from dozen.credits.v1.credits_events_pb2 import UsageReported
from dozen.credits.v1.credits_pb2 import UsageRecord
from dozen.gateway.v1.gateway_pb2 import Admission
from dozen.images.v1.images_service_pb2 import AnalyzeRequest
from dozen.images.v1.images_service_pb2_grpc import ImagesServiceStub
from dozen_chassis.errors import Status
from dozen_chassis.grpc import RemoteError, open_channel, remote_errors
from dozen_chassis.run import serving
from dozen_chassis.signing import caller_token
from dozen_images.app import create_app
from dozen_images.settings import Settings
from dozen_testing.http import Signer

pytestmark = pytest.mark.integration

OPERATION = "POST /v1/images/analyses"


def drawn(text: str) -> bytes:
    image = Image.new("RGB", (500, 120), "white")
    ImageDraw.Draw(image).text((30, 30), text, "black", ImageFont.load_default(36))
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


@dataclass
class Stage:
    """The running service, and how to reach it."""

    http: httpx.AsyncClient
    signer: Signer
    grpc_address: str
    grpc_token: str
    usage: JetStreamContext.PushSubscription

    async def analyze(
        self, image: bytes, *, request_id: str | None = None, patience: float = 30, **fields: str
    ) -> httpx.Response:
        """Send an image as a form."""
        return await self.http.post(
            "/v1/images/analyses",
            files={"image": ("image.png", image)},
            data={"model": "pp-ocrv6", **fields},
            headers=self.signer.headers(OPERATION, request_id=request_id),
            timeout=httpx.Timeout(30, read=patience),
        )

    async def charged(self, requests: int) -> list[tuple[str, dict[str, int]]]:
        """Wait until so much usage has been published; give each request and its quantities."""
        records: list[UsageRecord] = []
        while len(records) < requests:
            records += UsageReported.FromString((await self.usage.next_msg(timeout=5)).data).records
        held = {(record.account_id, record.lease_id) for record in records}
        assert held == {(self.signer.account, "lease-1")}
        return [(record.request_id, dict(record.quantities)) for record in records]


@pytest.fixture
async def stage(
    base_settings: dict[str, Any], signer: Signer, nats_client: Client, request: pytest.FixtureRequest
) -> AsyncIterator[Stage]:
    signer = replace(signer, facts={"price": "price-1", "reservation": "lease-1"})
    jetstream = nats_client.jetstream()
    await jetstream.add_stream(name="CREDITS", subjects=["dozen.credits.v1.>"])
    usage = await jetstream.subscribe("dozen.credits.v1.UsageReported")
    settings = Settings(**base_settings, **getattr(request, "param", {}))
    async with (
        serving("images", create_app, settings) as server,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.http_port}") as http,
    ):
        token = caller_token(bytes.fromhex(base_settings["grpc_key"]), "test")
        yield Stage(http, signer, f"127.0.0.1:{server.grpc_port}", token, usage)


async def test_an_image_is_read_over_http(stage: Stage) -> None:
    answer = await stage.analyze(drawn("Total: $373.60"), features="text")
    assert answer.status_code == 200
    body = answer.json()
    assert body["id"].startswith("imga_")
    assert {key: body[key] for key in ("object", "model", "text", "width", "height", "usage")} == {
        "object": "image.analysis",
        "model": "pp-ocrv6",
        "text": "Total: $373.60",
        "width": 500,
        "height": 120,
        "usage": {"images": 1},
    }
    (line,) = body["lines"]
    assert line["score"] > 0.9
    assert [len(corner) for corner in line["box"]] == [2, 2, 2, 2]


async def test_a_request_that_is_sent_again_is_charged_once(stage: Stage) -> None:
    for request_id in ("req_one", "req_one", "req_two"):
        assert (await stage.analyze(drawn("Hello"), request_id=request_id)).status_code == 200
    assert await stage.charged(2) == [("req_one", {"images": 1}), ("req_two", {"images": 1})]


async def test_a_file_that_is_no_image_is_an_error_of_the_caller(stage: Stage) -> None:
    answer = await stage.analyze(b"%PDF-1.4", request_id="req_1")
    assert answer.status_code == 400
    assert await stage.charged(1) == [("req_1", {})]
    error = answer.json()["error"]
    assert (error["type"], error["param"], error["code"]) == (
        "invalid_request_error",
        "image",
        "invalid_image",
    )


async def test_a_feature_that_is_not_there_is_refused(stage: Stage) -> None:
    answer = await stage.analyze(drawn("Hello"), features="faces", request_id="req_1")
    assert answer.status_code == 400
    assert await stage.charged(1) == [("req_1", {})]
    assert answer.json()["error"]["param"] == "features.0"


@pytest.mark.parametrize("stage", [{"max_image_bytes": 1000}], indirect=True)
async def test_an_upload_that_is_too_large_is_refused(stage: Stage) -> None:
    answer = await stage.analyze(bytes(2 * 1024 * 1024), request_id="req_1")
    assert answer.status_code == 413
    assert await stage.charged(1) == [("req_1", {})]
    assert answer.json()["error"]["code"] == "request_too_large"


async def test_nobody_walks_around_the_gateway(stage: Stage) -> None:
    answer = await stage.http.post("/v1/images/analyses", files={"image": drawn("Hello")})
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "not_admitted"


async def test_an_image_is_read_over_grpc(stage: Stage) -> None:
    headers = stage.signer.headers(OPERATION, request_id="req_grpc")
    call = AnalyzeRequest(
        admission=Admission(headers=headers), model="pp-ocrv6", image=drawn("Total: $373.60")
    )
    async with open_channel(stage.grpc_address, stage.grpc_token) as channel:
        images = ImagesServiceStub(channel)
        answer = await images.Analyze(call)
        assert answer.text == "Total: $373.60"
        assert (answer.width, answer.height, len(answer.lines[0].box)) == (500, 120, 4)
        call.image = b"%PDF-1.4"
        call.admission.headers.update(stage.signer.headers(OPERATION, request_id="req_bad"))
        with pytest.raises(RemoteError) as refused, remote_errors():
            await images.Analyze(call)
        assert (refused.value.status, refused.value.code) == (Status.INVALID_ARGUMENT, "invalid_image")
        with pytest.raises(RemoteError) as refused, remote_errors():
            await images.Analyze(AnalyzeRequest(image=drawn("Hello")))
        assert refused.value.code == "not_admitted"
    assert await stage.charged(2) == [("req_grpc", {"images": 1}), ("req_bad", {})]


async def test_a_client_that_leaves_before_its_image_is_read_is_not_charged(stage: Stage) -> None:
    with pytest.raises(httpx.ReadTimeout):
        await stage.analyze(drawn("Hello"), request_id="req_1", patience=0.001)
    assert await stage.charged(1) == [("req_1", {})]
