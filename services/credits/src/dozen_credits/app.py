"""Composition root of the credits service."""

from datetime import timedelta

from dozen.credits.v1 import credits_service_pb2, credits_service_pb2_grpc
from dozen_chassis.app import App, Resources
from dozen_chassis.consumer import bind
from dozen_chassis.grpc import GrpcService
from dozen_credits import routes
from dozen_credits.handlers import HANDLERS
from dozen_credits.repository.accounts import AccountsRepository
from dozen_credits.repository.leases import LeasesRepository
from dozen_credits.repository.metering import MeteringRepository
from dozen_credits.repository.postings import PostingsRepository
from dozen_credits.repository.usage import UsageRepository
from dozen_credits.service.accounts import Accounts
from dozen_credits.service.leases import Leases
from dozen_credits.service.metering import Metering
from dozen_credits.service.postings import Postings
from dozen_credits.service.usage import UsageReports
from dozen_credits.servicer import CreditsServicer
from dozen_credits.settings import Settings

_MONTHS_AHEAD = 3
_SWEEP_EVERY = timedelta(seconds=10)


async def create_app(settings: Settings, stack: Resources) -> App:
    """Build the service."""
    database = await stack.postgres(settings.postgres_dsn)
    stack.jetstream(settings.nats_url, replicas=settings.nats_replicas)
    accounts = Accounts(AccountsRepository(database))
    usage = MeteringRepository(database)
    low_balance = settings.low_balance_nano_credits
    metering = Metering(usage, price_attempts=settings.price_attempts, low_balance=low_balance)
    postings = Postings(PostingsRepository(database), low_balance=low_balance)
    leases = Leases(
        LeasesRepository(database),
        lifetime=timedelta(seconds=settings.lease_seconds),
        longest_request=timedelta(seconds=settings.longest_request_seconds),
    )
    reports = UsageReports(UsageRepository(database))
    stack.every("announce accounts", timedelta(days=1), accounts.announce)
    stack.every("create partitions", timedelta(days=1), lambda: usage.create_partitions(_MONTHS_AHEAD))
    stack.every("close overdue leases", _SWEEP_EVERY, leases.close_overdue)
    stack.every("expire credits", _SWEEP_EVERY, postings.expire)
    return App(
        routers=[routes.router(accounts, reports)],
        admission_key=bytes.fromhex(settings.admission_key.get_secret_value()),
        grpc=[
            GrpcService(
                credits_service_pb2.DESCRIPTOR,
                credits_service_pb2_grpc.add_CreditsServiceServicer_to_server,
                CreditsServicer(accounts, leases, postings),
            )
        ],
        subscriptions=bind(HANDLERS, metering),
    )
