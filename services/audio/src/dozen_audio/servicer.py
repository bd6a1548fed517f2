"""gRPC servicer of the audio service."""

import time
from collections.abc import AsyncIterator
from contextlib import aclosing

import grpc.aio

from dozen.audio.v1.audio_service_pb2 import Segment as SegmentMessage
from dozen.audio.v1.audio_service_pb2 import (
    SpeakRequest,
    SpeakResponse,
    TranscribeRequest,
    TranscribeResponse,
)
from dozen.audio.v1.audio_service_pb2_grpc import AudioServiceServicer
from dozen.gateway.v1 import gateway_pb2
from dozen_audio.domain import AudioFormat, Speech, Transcription
from dozen_audio.errors import FormatNotSupported
from dozen_audio.service import AudioService, Entry, Samples
from dozen_chassis import admission
from dozen_chassis.admission import Admission
from dozen_inference.settlement import Settlements


class AudioServicer(AudioServiceServicer):
    """Serves `dozen.audio.v1.AudioService`."""

    def __init__(
        self, audio: AudioService[Samples], settlements: Settlements[Entry], admission_key: bytes
    ) -> None:
        self._audio = audio
        self._settlements = settlements
        self._admission_key = admission_key

    async def Transcribe(
        self, request: TranscribeRequest, context: grpc.aio.ServicerContext
    ) -> TranscribeResponse:
        """Write down what is said in a recording."""
        admitted = self._verify(request.admission, "POST /v1/audio/transcriptions")
        async with self._settlements.follow(admitted):
            transcript = await self._audio.transcribe(admitted, Transcription(request.model, request.audio))
        return TranscribeResponse(
            text=transcript.text,
            duration_milliseconds=transcript.milliseconds,
            segments=[
                SegmentMessage(
                    start_milliseconds=round(segment.start * 1000),
                    end_milliseconds=round(segment.end * 1000),
                    text=segment.text,
                )
                for segment in transcript.segments
            ],
        )

    async def Speak(
        self, request: SpeakRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[SpeakResponse]:
        """Give the audio of a text as it is spoken."""
        admitted = self._verify(request.admission, "POST /v1/audio/speech")
        async with self._settlements.follow(admitted):
            if request.format not in list(AudioFormat):
                raise FormatNotSupported(param="format")
            speech = Speech(request.model, request.input, request.voice, AudioFormat(request.format))
            async with aclosing(self._audio.speak(admitted, speech)) as pieces:
                async for piece in pieces:
                    yield SpeakResponse(chunk=piece)

    def _verify(self, message: gateway_pb2.Admission, operation: str) -> Admission:
        return admission.verify(message.headers, operation, self._admission_key, time.time())
