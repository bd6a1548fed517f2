"""HTTP routes of the audio service."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Annotated

from fastapi import APIRouter, File, Form, Request, Response, UploadFile
from fastapi.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.types import Receive, Scope, Send

from dozen_audio.domain import TEXT_FORMATS, Speech, Transcription
from dozen_audio.schemas import (
    Granularity,
    ResponseFormat,
    SpeechRequest,
    transcription_json,
    transcription_verbose_json,
)
from dozen_audio.service import AudioService, Samples
from dozen_chassis.http import Admitted
from dozen_inference.departure import unless_client_leaves


def router(audio: AudioService[Samples]) -> APIRouter:
    """Serve `/v1/audio/transcriptions` and `/v1/audio/speech`."""
    routes = APIRouter(prefix="/v1/audio")

    @routes.post("/transcriptions")
    async def create_transcription(
        admission: Admitted,
        request: Request,
        file: Annotated[UploadFile, File()],
        model: Annotated[str, Form()],
        language: Annotated[str | None, Form()] = None,
        prompt: Annotated[str | None, Form(max_length=4096)] = None,
        temperature: Annotated[float, Form(ge=0, le=1)] = 0,
        response_format: Annotated[ResponseFormat, Form()] = "json",
        granularities: Annotated[list[Granularity] | None, Form(alias="timestamp_granularities[]")] = None,
    ) -> Response:
        wanted = granularities or ["segment"]
        transcription = Transcription(
            model=model,
            recording=await file.read(),
            language=language,
            prompt=prompt,
            temperature=temperature,
            words="word" in wanted,
        )
        transcript = await unless_client_leaves(request.receive, audio.transcribe(admission, transcription))
        if response_format == "json":
            return JSONResponse(transcription_json(transcript))
        if response_format == "verbose_json":
            return JSONResponse(transcription_verbose_json(transcript, wanted))
        return PlainTextResponse(TEXT_FORMATS[response_format](transcript))

    @routes.post("/speech")
    async def create_speech(body: SpeechRequest, admission: Admitted) -> Response:
        speech = Speech(
            model=body.model,
            text=body.input,
            voice=body.voice_id,
            format=body.response_format,
            speed=body.speed,
        )
        pieces = audio.speak(admission, speech)
        first = await anext(pieces)  # what goes wrong before the first sound is answered as an error
        return _Sound(first, pieces, speech.format.media_type)

    return routes


class _Sound(StreamingResponse):
    """Speech as it is spoken; its end is the end of the speaking too, so that it is charged by then."""

    def __init__(self, first: bytes, rest: AsyncGenerator[bytes, None], media_type: str) -> None:
        super().__init__(_joined(first, rest), media_type=media_type)
        self._rest = rest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(self._rest):
            await super().__call__(scope, receive, send)


async def _joined(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for piece in rest:
        yield piece
