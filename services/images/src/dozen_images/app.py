"""Composition root of the images service."""

from typing import TYPE_CHECKING

from starlette.middleware import Middleware

from dozen.credits.v1.credits_events_pb2 import UsageReported
from dozen.images.v1 import images_service_pb2, images_service_pb2_grpc
from dozen_chassis.app import App, Resources
from dozen_chassis.consumer import bind
from dozen_chassis.grpc import GrpcService
from dozen_chassis.outbox import GroupCommit
from dozen_images import routes
from dozen_images.repository import ImagesRepository
from dozen_images.service import Entry, ImagesService, Reader, write
from dozen_images.servicer import ImagesServicer
from dozen_images.settings import Settings
from dozen_inference.local import LocalModel
from dozen_inference.replay import HANDLERS as RECOUNT
from dozen_inference.replay import UsageReplay
from dozen_inference.settlement import FollowedRequests, Settlements

if TYPE_CHECKING:
    from dozen_images.reader import Picture

MODEL = "pp-ocrv6"
PACKAGES = ("numpy", "onnxruntime", "PIL", "rapidocr")
FORM_BYTES = 1024 * 1024
"""What a form may hold besides its file."""


async def create_app(settings: Settings, stack: Resources) -> App:
    """Build the service."""
    database = await stack.postgres(settings.postgres_dsn, keeps=[UsageReported])
    stack.jetstream(settings.nats_url, replicas=settings.nats_replicas)
    model = LocalModel(
        MODEL,
        lambda: _load_reader(settings.model_threads, settings.max_image_pixels),
        packages=PACKAGES,
        most_requests=settings.max_requests,
    )
    stack.callback(model.close)
    await model.load()
    stack.ping("model", model.ping, optional=True)
    records = ImagesRepository(database)
    commits: GroupCommit[Entry] = stack.group_commit(lambda entries: write(records, entries))
    log: Settlements[Entry] = Settlements(commits.put, unused=Entry)
    images = ImagesService(model, log)
    admission_key = bytes.fromhex(settings.admission_key.get_secret_value())
    return App(
        routers=[routes.router(images)],
        middleware=[Middleware(FollowedRequests, settlements=log)],
        admission_key=admission_key,
        body_limits=[("/v1/images/analyses", settings.max_image_bytes + FORM_BYTES)],
        grpc=[
            GrpcService(
                images_service_pb2.DESCRIPTOR,
                images_service_pb2_grpc.add_ImagesServiceServicer_to_server,
                ImagesServicer(images, log, admission_key),
            )
        ],
        subscriptions=bind(RECOUNT, UsageReplay(stack.service, database)),
    )


def _load_reader(threads: int, max_pixels: int) -> Reader["Picture"]:
    from dozen_images.reader import PaddleReader  # only where its packages are installed

    return PaddleReader(threads, max_pixels)
