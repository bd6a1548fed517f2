"""Composition root of the admin service."""

from datetime import timedelta

import aiohttp
from starlette.middleware import Middleware
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

from dozen.admin.v1 import admin_service_pb2, admin_service_pb2_grpc
from dozen_admin.clients import ReadinessProbe
from dozen_admin.handlers.table import HANDLERS
from dozen_admin.repository.health import HealthRepository
from dozen_admin.repository.intake import IntakeRepository
from dozen_admin.repository.staff import StaffRepository
from dozen_admin.repository.views import ViewsRepository
from dozen_admin.routes import api, pages, sessions
from dozen_admin.routes.browser import Browser
from dozen_admin.routes.rendering import STATIC, Pages
from dozen_admin.service.intake import IntakeService
from dozen_admin.service.staff import StaffService
from dozen_admin.service.views import ViewsService
from dozen_admin.service.watch import ServiceWatch
from dozen_admin.servicer import AdminServicer
from dozen_admin.settings import Settings
from dozen_chassis.app import App, Resources
from dozen_chassis.consumer import bind
from dozen_chassis.grpc import GrpcService

_LOOK_EVERY = timedelta(seconds=5)
_FORGET_EVERY = timedelta(hours=1)
_LARGEST_FORM = 64 * 1024


async def create_app(settings: Settings, stack: Resources) -> App:
    """Build the service."""
    database = await stack.postgres(settings.postgres_dsn)
    stack.jetstream(settings.nats_url, replicas=settings.nats_replicas)
    http = await stack.enter(aiohttp.ClientSession())
    intake = IntakeService(IntakeRepository(database))
    staff = StaffService(StaffRepository(database), settings.admin_password.get_secret_value())
    watch = ServiceWatch(settings.service_addresses, ReadinessProbe(http), HealthRepository(database))
    views = ViewsService(ViewsRepository(database), watch)
    stack.every("watch services", _LOOK_EVERY, watch.look)
    stack.every("forget records", _FORGET_EVERY, lambda: intake.forget(keep_recent=settings.keep_recent))
    stack.every("forget sessions", _FORGET_EVERY, lambda: staff.forget(keep_audit=settings.keep_audit))
    rendered = Pages()
    return App(
        routers=[
            sessions.router(staff, rendered),
            pages.router(views, staff, rendered),
            api.router(views, staff),
        ],
        plain_routes=[Mount("/static", StaticFiles(directory=STATIC))],
        middleware=[Middleware(Browser, rendered)],
        takes_request_ids=False,
        body_limits=[("/", _LARGEST_FORM)],
        grpc=[
            GrpcService(
                admin_service_pb2.DESCRIPTOR,
                admin_service_pb2_grpc.add_AdminServiceServicer_to_server,
                AdminServicer(views),
            )
        ],
        subscriptions=bind(HANDLERS, intake),
    )
