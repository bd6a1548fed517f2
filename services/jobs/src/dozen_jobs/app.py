"""Composition root of the jobs service."""

from datetime import timedelta

from dozen.jobs.v1 import jobs_service_pb2, jobs_service_pb2_grpc
from dozen_chassis.app import App, Resources
from dozen_chassis.consumer import bind
from dozen_chassis.grpc import GrpcService
from dozen_jobs import routes
from dozen_jobs.clients import GatewayClient
from dozen_jobs.handlers import HANDLERS
from dozen_jobs.repository import JobsRepository
from dozen_jobs.service.jobs import JobsService
from dozen_jobs.servicer import JobsServicer
from dozen_jobs.settings import Settings


async def create_app(settings: Settings, stack: Resources) -> App:
    """Build the service."""
    database = await stack.postgres(settings.postgres_dsn)
    stack.jetstream(settings.nats_url, replicas=settings.nats_replicas)
    gateway = GatewayClient(stack.channel(settings.gateway_address, settings.gateway_token))
    jobs = JobsService(JobsRepository(database), gateway, max_unfinished=settings.max_unfinished)
    stack.every("measure jobs", timedelta(seconds=15), jobs.measure)
    stack.every("expire jobs", timedelta(minutes=1), jobs.expire)
    stack.every("forget jobs", timedelta(minutes=10), lambda: jobs.forget(settings.retention))
    return App(
        routers=[routes.router(jobs)],
        admission_key=bytes.fromhex(settings.admission_key.get_secret_value()),
        grpc=[
            GrpcService(
                jobs_service_pb2.DESCRIPTOR,
                jobs_service_pb2_grpc.add_JobsServiceServicer_to_server,
                JobsServicer(jobs),
            )
        ],
        subscriptions=bind(HANDLERS, jobs),
    )
