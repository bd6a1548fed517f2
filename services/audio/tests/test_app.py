"""The whole service: the official client, the real models, the real database and NATS."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

import httpx
import pytest
from nats.aio.client import Client
from nats.js import JetStreamContext
from openai import APIStatusError, AsyncOpenAI, BadRequestError

from dozen.audio.v1.audio_service_pb2 import SpeakRequest, TranscribeRequest
from dozen.audio.v1.audio_service_pb2_grpc import AudioServiceStub
from dozen.credits.v1.credits_events_pb2 import UsageReported
from dozen.credits.v1.credits_pb2 import UsageRecord
from dozen.gateway.v1.gateway_pb2 import Admission
from dozen_audio.app import create_app
from dozen_audio.settings import Settings
from dozen_chassis.errors import Status
from dozen_chassis.grpc import RemoteError, open_channel, remote_errors
from dozen_chassis.run import serving
from dozen_chassis.signing import caller_token
from dozen_testing.clients import openai_client
from dozen_testing.http import Signer

pytestmark = pytest.mark.integration

TEXT = "Hello, and welcome to the platform."
EAR, MOUTH = "whisper-tiny.en", "hibari"


@dataclass
class Stage:
    """The running service, and how to reach it."""

    url: str
    openai: AsyncOpenAI
    signer: Signer
    grpc_address: str
    grpc_token: str
    usage: JetStreamContext.PushSubscription

    async def charged(self, requests: int) -> list[tuple[str, dict[str, int]]]:
        """Wait until so much usage has been published; give each request's path and its quantities."""
        records: list[UsageRecord] = []
        while len(records) < requests:
            records += UsageReported.FromString((await self.usage.next_msg(timeout=5)).data).records
        held = {(record.account_id, record.lease_id) for record in records}
        assert held == {(self.signer.account, "lease-1")}
        assert len({record.request_id for record in records}) == requests
        return [
            (record.operation.removeprefix("POST /v1/audio/"), dict(record.quantities)) for record in records
        ]

    async def wav(self) -> bytes:
        """Speak the text."""
        answer = await self.openai.audio.speech.create(
            model=MOUTH, voice="alloy", input=TEXT, response_format="wav"
        )
        return answer.content


@pytest.fixture
async def stage(
    base_settings: dict[str, Any], signer: Signer, nats_client: Client, request: pytest.FixtureRequest
) -> AsyncIterator[Stage]:
    signer = replace(signer, facts={"price": "price-1", "reservation": "lease-1"})
    jetstream = nats_client.jetstream()
    await jetstream.add_stream(name="CREDITS", subjects=["dozen.credits.v1.>"])
    usage = await jetstream.subscribe("dozen.credits.v1.UsageReported")
    settings = Settings(**base_settings, **getattr(request, "param", {}))
    async with serving("audio", create_app, settings) as server:
        url = f"http://127.0.0.1:{server.http_port}"
        token = caller_token(bytes.fromhex(base_settings["grpc_key"]), "test")
        async with openai_client(url, signer) as openai:
            yield Stage(url, openai, signer, f"127.0.0.1:{server.grpc_port}", token, usage)


async def test_the_official_client_hears_what_it_had_spoken_and_each_is_charged_once(stage: Stage) -> None:
    wav = await stage.wav()
    milliseconds = pytest.approx((len(wav) - 44) / 48, abs=1)
    heard = await stage.openai.audio.transcriptions.create(model=EAR, file=("speech.wav", wav))
    assert heard.text == TEXT
    await stage.openai.audio.speech.create(model=MOUTH, voice="heart", input="Bye.", response_format="pcm")
    assert await stage.charged(3) == [
        ("speech", {"characters": len(TEXT)}),
        ("transcriptions", {"audio_milliseconds": milliseconds}),
        ("speech", {"characters": 4}),
    ]


async def test_a_transcript_comes_in_every_form_of_openai(stage: Stage) -> None:
    transcriptions, file = stage.openai.audio.transcriptions, ("speech.wav", await stage.wav())
    verbose = await transcriptions.create(
        model=EAR, file=file, response_format="verbose_json", timestamp_granularities=["word", "segment"]
    )
    assert verbose.duration == pytest.approx(2.2, abs=1)
    assert verbose.segments is not None
    assert "".join(segment.text for segment in verbose.segments).strip() == TEXT
    assert verbose.words is not None
    assert [word.word for word in verbose.words][:2] == ["Hello,", "and"]
    assert await transcriptions.create(model=EAR, file=file, response_format="text") == f"{TEXT}\n"
    srt = str(await transcriptions.create(model=EAR, file=file, response_format="srt"))
    assert srt.startswith("1\n00:00:0")
    assert f"\n{TEXT}\n" in srt
    assert str(await transcriptions.create(model=EAR, file=file, response_format="vtt")).startswith(
        "WEBVTT\n"
    )


@pytest.mark.parametrize(
    ("audio_format", "media_type", "magic"),
    [("mp3", "audio/mpeg", b"\xff"), ("opus", "audio/ogg", b"OggS"), ("flac", "audio/flac", b"fLaC")],
)
async def test_speech_is_streamed_in_the_format_that_was_asked_for(
    stage: Stage, audio_format: Any, media_type: str, magic: bytes
) -> None:
    speech = stage.openai.audio.speech.with_streaming_response
    async with speech.create(
        model=MOUTH, voice="alloy", input="Hello.", response_format=audio_format
    ) as answer:
        assert answer.headers["content-type"] == media_type
        assert (await answer.read()).startswith((magic, b"ID3"))


@pytest.mark.parametrize("text", ["中文", "?!"])
async def test_a_text_that_cannot_be_said_is_refused(stage: Stage, text: str) -> None:
    with pytest.raises(BadRequestError) as refused:
        await stage.openai.audio.speech.create(model=MOUTH, voice="alloy", input=text, response_format="wav")
    assert (refused.value.code, refused.value.param) == ("invalid_input", "input")
    assert await stage.charged(1) == [("speech", {})]


async def test_what_is_wrong_is_told_as_openai_does(stage: Stage) -> None:
    with pytest.raises(BadRequestError, match="the voices are alloy, ash") as refused:
        await stage.openai.audio.speech.create(model=MOUTH, voice="nobody", input=TEXT)
    assert (refused.value.code, refused.value.param) == ("voice_not_found", "voice")
    with pytest.raises(BadRequestError) as refused:
        await stage.openai.audio.transcriptions.create(model=EAR, file=("speech.wav", b"not audio"))
    assert (refused.value.code, refused.value.param) == ("invalid_audio", "file")
    with pytest.raises(BadRequestError) as refused:
        await stage.openai.audio.transcriptions.create(model=EAR, file=("a.wav", b"RIFF"), language="de")
    assert (refused.value.code, refused.value.param) == ("unsupported_language", "language")
    assert refused.value.type == "invalid_request_error"
    with pytest.raises(BadRequestError):
        await stage.openai.audio.speech.create(model=MOUTH, voice="alloy", input=[])  # type: ignore[arg-type]
    assert await stage.charged(4) == [("speech", {}), *[("transcriptions", {})] * 2, ("speech", {})]


@pytest.mark.parametrize("stage", [{"max_audio_bytes": 1000, "max_audio_seconds": 1}], indirect=True)
async def test_a_recording_that_is_too_long_is_refused(stage: Stage) -> None:
    with pytest.raises(BadRequestError) as refused:
        await stage.openai.audio.transcriptions.create(model=EAR, file=("speech.wav", await stage.wav()))
    assert refused.value.code == "audio_too_long"
    with pytest.raises(APIStatusError) as too_large:
        await stage.openai.audio.transcriptions.create(model=EAR, file=("big.wav", bytes(2 * 1024 * 1024)))
    assert (too_large.value.status_code, too_large.value.code) == (413, "request_too_large")
    assert [quantities for _, quantities in await stage.charged(3)] == [{"characters": len(TEXT)}, {}, {}]


async def test_a_recording_that_is_longer_than_is_held_for_is_refused(stage: Stage) -> None:
    wav = await stage.wav()
    held = replace(stage.signer, facts={**stage.signer.facts, "max-units": "500"})
    async with openai_client(stage.url, held) as openai:
        with pytest.raises(BadRequestError) as refused:
            await openai.audio.transcriptions.create(model=EAR, file=("speech.wav", wav))
    assert (refused.value.code, refused.value.param) == ("audio_too_long_for_its_size", "file")
    assert await stage.charged(2) == [("speech", {"characters": len(TEXT)}), ("transcriptions", {})]


async def test_a_client_that_leaves_pays_for_what_was_spoken(stage: Stage) -> None:
    text = "This is one of many sentences. " * 100
    headers = stage.signer.headers("POST /v1/audio/speech")
    body = {"model": MOUTH, "voice": "alloy", "input": text, "response_format": "pcm"}
    async with (
        httpx.AsyncClient() as client,
        client.stream("POST", f"{stage.url}/v1/audio/speech", json=body, headers=headers) as answer,
    ):
        await anext(answer.aiter_bytes())
    ((_, quantities),) = await stage.charged(1)
    assert 0 < quantities["characters"] < len(text) / 2


async def test_speech_and_transcription_are_served_over_grpc(stage: Stage) -> None:
    speaking, misspeaking, unformatted = (
        Admission(headers=stage.signer.headers("POST /v1/audio/speech")) for _ in range(3)
    )
    hearing = Admission(headers=stage.signer.headers("POST /v1/audio/transcriptions"))
    async with open_channel(stage.grpc_address, stage.grpc_token) as channel:
        audio = AudioServiceStub(channel)
        spoken = SpeakRequest(admission=speaking, model=MOUTH, input=TEXT, voice="heart", format="mp3")
        recording = b"".join([piece.chunk async for piece in audio.Speak(spoken)])
        heard = await audio.Transcribe(TranscribeRequest(admission=hearing, model=EAR, audio=recording))
        assert heard.text == TEXT
        assert heard.duration_milliseconds == pytest.approx(2200, abs=1000)
        assert heard.segments[-1].end_milliseconds <= heard.duration_milliseconds
        for wrong, code in (
            (
                SpeakRequest(admission=misspeaking, input=TEXT, voice="nobody", format="mp3"),
                "voice_not_found",
            ),
            (
                SpeakRequest(admission=unformatted, input=TEXT, voice="heart", format="midi"),
                "unsupported_format",
            ),
        ):
            with pytest.raises(RemoteError) as refused, remote_errors():
                _ = [piece async for piece in audio.Speak(wrong)]
            assert (refused.value.status, refused.value.code) == (Status.INVALID_ARGUMENT, code)
        with pytest.raises(RemoteError) as refused, remote_errors():
            await audio.Transcribe(TranscribeRequest(admission=speaking, model=EAR, audio=recording))
        assert refused.value.code == "not_admitted"
    used = [quantities for _, quantities in await stage.charged(4)]
    milliseconds = {"audio_milliseconds": heard.duration_milliseconds}
    assert used == [{"characters": len(TEXT)}, milliseconds, {}, {}]
