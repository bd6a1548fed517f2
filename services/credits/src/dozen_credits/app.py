"""Composition root of the credits service."""

from datetime import timedelta

from dozen.credits.v1 import (
    credits_service_pb2,
    credits_service_pb2_grpc,
    reconciliation_service_pb2,
    reconciliation_service_pb2_grpc,
)
from dozen_chassis.app import App, Resources
from dozen_chassis.consumer import bind
from dozen_chassis.grpc import GrpcService
from dozen_credits.domain.accounts import NANO
from dozen_credits.handlers import HANDLERS, Intake
from dozen_credits.repository.accounts import AccountsRepository
from dozen_credits.repository.invoices import InvoicesRepository
from dozen_credits.repository.leases import LeasesRepository
from dozen_credits.repository.metering import MeteringRepository
from dozen_credits.repository.payments import PaymentsRepository
from dozen_credits.repository.postings import PostingsRepository
from dozen_credits.repository.reconciliation import ReconciliationRepository
from dozen_credits.repository.usage import UsageRepository
from dozen_credits.routes import accounts as account_routes
from dozen_credits.routes import invoices as invoice_routes
from dozen_credits.routes import stripe
from dozen_credits.routes import usage as usage_routes
from dozen_credits.service.accounts import Accounts
from dozen_credits.service.invoices import Invoices
from dozen_credits.service.leases import Leases
from dozen_credits.service.metering import Metering
from dozen_credits.service.payments import Payments
from dozen_credits.service.postings import Postings
from dozen_credits.service.reconciliation import Reconciliations
from dozen_credits.service.usage import UsageReports
from dozen_credits.servicer import CreditsServicer, ReconciliationServicer
from dozen_credits.settings import Settings

_MONTHS_AHEAD = 3
_SWEEP_EVERY = timedelta(seconds=10)
_SWEEP_AT_MOST_EVERY = timedelta(seconds=0.25)
_REPORTING = ("chat", "completion", "embeddings", "images", "audio")
"""The services that report usage."""


async def create_app(settings: Settings, stack: Resources) -> App:
    """Build the service."""
    database = await stack.postgres(settings.postgres_dsn)
    stack.jetstream(settings.nats_url, replicas=settings.nats_replicas)
    accounts = Accounts(AccountsRepository(database))
    usage = MeteringRepository(database)
    low_balance = settings.low_balance_nano_credits
    metering = Metering(usage, price_attempts=settings.price_attempts, low_balance=low_balance)
    postings = Postings(PostingsRepository(database), low_balance=low_balance)
    longest_request = timedelta(seconds=settings.longest_request_seconds)
    leases = Leases(
        LeasesRepository(database),
        lifetime=timedelta(seconds=settings.lease_seconds),
        longest_request=longest_request,
    )
    reports = UsageReports(UsageRepository(database))
    routers = [
        account_routes.router(accounts),
        usage_routes.router(reports),
        invoice_routes.router(accounts, Invoices(InvoicesRepository(database))),
    ]
    if secret := settings.stripe_webhook_secret:
        rates = {currency: int(rate * NANO) for currency, rate in settings.stripe_credits.items()}
        payments = Payments(PaymentsRepository(database), rates=rates, low_balance=low_balance)
        routers.append(stripe.router(payments, secret))
    reconciliations = Reconciliations(
        ReconciliationRepository(database), services=_REPORTING, answer_within=timedelta(minutes=10)
    )
    stack.every("announce accounts", timedelta(days=1), accounts.announce)
    stack.every("create partitions", timedelta(days=1), lambda: usage.create_partitions(_MONTHS_AHEAD))
    sweep_every = max(_SWEEP_AT_MOST_EVERY, min(_SWEEP_EVERY, longest_request / 4))
    stack.every("close overdue leases", sweep_every, leases.close_overdue)
    stack.every("expire credits", _SWEEP_EVERY, postings.expire)
    stack.every("reconcile yesterday", timedelta(minutes=10), reconciliations.start_daily)
    stack.every("advance reconciliations", timedelta(seconds=2), reconciliations.advance)
    stack.every("forget recounts", timedelta(hours=1), reconciliations.forget)
    return App(
        routers=routers,
        body_limits=[(stripe.PATH, stripe.MAX_BODY_BYTES)],
        admission_key=bytes.fromhex(settings.admission_key.get_secret_value()),
        grpc=[
            GrpcService(
                credits_service_pb2.DESCRIPTOR,
                credits_service_pb2_grpc.add_CreditsServiceServicer_to_server,
                CreditsServicer(accounts, leases, postings),
            ),
            GrpcService(
                reconciliation_service_pb2.DESCRIPTOR,
                reconciliation_service_pb2_grpc.add_ReconciliationServiceServicer_to_server,
                ReconciliationServicer(reconciliations),
            ),
        ],
        subscriptions=bind(HANDLERS, Intake(metering, reconciliations)),
    )
