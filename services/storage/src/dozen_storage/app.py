"""Composition root of the storage service."""

from datetime import timedelta

from dozen.storage.v1 import storage_service_pb2, storage_service_pb2_grpc
from dozen_chassis.app import App, Resources
from dozen_chassis.grpc import GrpcService
from dozen_storage import routes
from dozen_storage.domain import Limits
from dozen_storage.objects import ObjectStore
from dozen_storage.repository import FilesRepository
from dozen_storage.service import FilesService
from dozen_storage.servicer import StorageServicer
from dozen_storage.settings import Settings

_FORM_BYTES = 64 * 1024
"""What a form may have around its file."""


async def create_app(settings: Settings, stack: Resources) -> App:
    """Build the service."""
    database = await stack.postgres(settings.postgres_dsn)
    stack.jetstream(settings.nats_url, replicas=settings.nats_replicas)
    objects = ObjectStore(settings.object_store_url)
    stack.ping("object store", objects.ping)
    limits = Limits(
        file_bytes=settings.max_file_bytes,
        account_bytes=settings.max_account_bytes,
        uploads=settings.max_uploads,
        upload_time=settings.upload_timeout,
    )
    files = FilesService(FilesRepository(database), objects, limits)
    stack.every("sweep", timedelta(seconds=30), files.sweep)
    return App(
        routers=[routes.router(files)],
        admission_key=bytes.fromhex(settings.admission_key.get_secret_value()),
        body_limits=[("/v1/files", settings.max_file_bytes + _FORM_BYTES)],
        grpc=[
            GrpcService(
                storage_service_pb2.DESCRIPTOR,
                storage_service_pb2_grpc.add_StorageServiceServicer_to_server,
                StorageServicer(files),
            )
        ],
    )
