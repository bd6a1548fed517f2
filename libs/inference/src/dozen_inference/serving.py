"""What a service that proxies completions stands on, put together the same way in each."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from pydantic import Field, SecretStr

from dozen_chassis.app import Resources
from dozen_chassis.bus import Bus
from dozen_chassis.consumer import Subscription, bind
from dozen_chassis.postgres import Database
from dozen_chassis.settings import AdmittedSettings
from dozen_inference.answers import AnswerRepository
from dozen_inference.cache import ResponseCache
from dozen_inference.catalogue import CHANNEL, Catalogue, DeploymentRepository
from dozen_inference.catalogue import HANDLERS as CATALOGUE
from dozen_inference.deployments import Deployments
from dozen_inference.filter import ContentFilter
from dozen_inference.http1 import HttpClient
from dozen_inference.moderation import ModerationClient
from dozen_inference.observations import Observer
from dozen_inference.places import Places
from dozen_inference.provider_keys import ProviderKeys
from dozen_inference.replay import HANDLERS as RECOUNT
from dozen_inference.replay import UsageReplay

_DELETION_BATCH = 1000


class CompletionSettings(AdmittedSettings):
    """Settings of a service that proxies completions."""

    inference_url: str = Field(description="Base URL of the inference server in this pod, without `/v1`.")
    deployments: frozenset[str] = Field(
        frozenset(),
        description="Ids, as JSON, of the deployments in this pod; none: all that have no URL.",
    )
    provider_keys_directory: Path | None = Field(
        None, description="Directory with the keys of providers, one file for each secret."
    )
    embeddings_address: str = Field(description="gRPC address of embeddings, which moderates for the filter.")
    embeddings_token: SecretStr = Field(description="Token for calls to embeddings.")
    connect_seconds: float = Field(2, description="Longest wait for a connection to an inference server.")
    first_byte_seconds: float = Field(120, description="Longest wait for the first byte of a stream.")
    idle_seconds: float = Field(60, description="Longest pause within an answer.")
    answer_seconds: float = Field(600, description="Longest wait for an answer that is not streamed.")
    max_requests: int = Field(2048, description="Requests that are answered at once before more are refused.")
    max_upstream_requests: int = Field(
        1024, description="Requests at one deployment at once, where the catalogue does not say."
    )
    max_choices: int = Field(1, description="Choices that one request may ask for.")
    cache_lifetime: timedelta = Field(
        timedelta(hours=1), description="Age of cached answers, where the model's policy does not say."
    )
    cache_answers: int = Field(100_000, description="Answers that are kept in the cache.")
    log_retention: timedelta = Field(timedelta(days=30), description="How long the request log is kept.")


@dataclass(frozen=True, slots=True)
class Proxy:
    """What a service proxies completions with."""

    deployments: Deployments
    cache: ResponseCache
    content_filter: ContentFilter
    subscriptions: Sequence[Subscription]


async def open_proxy(settings: CompletionSettings, stack: Resources, database: Database, bus: Bus) -> Proxy:
    """Open what completions are proxied with, and keep it in step with the catalogue."""
    client = await stack.enter(HttpClient(connect_seconds=settings.connect_seconds))
    places = Places(
        client,
        settings.inference_url,
        settings.deployments,
        most_requests=settings.max_upstream_requests,
        idle_seconds=settings.idle_seconds,
    )
    stack.ping("inference", places.own.ping, optional=True)
    catalogue = Catalogue(stack.service, DeploymentRepository(database), places)
    second = timedelta(seconds=1)
    stack.every("follow deployments", second, lambda: catalogue.follow(database.listen(CHANNEL)))
    stack.every("observe upstreams", second, Observer(stack.service, places, bus.tell).observe)
    answers = AnswerRepository(database)

    async def forget() -> None:
        while await answers.forget(settings.cache_answers, _DELETION_BATCH):
            pass

    stack.every("forget answers", timedelta(minutes=10), forget)
    key = bytes.fromhex(settings.admission_key.get_secret_value())
    channel = stack.channel(settings.embeddings_address, settings.embeddings_token)
    return Proxy(
        Deployments(
            places,
            ProviderKeys(settings.provider_keys_directory),
            lambda admission, expires_at: admission.headers(key, expires_at),
        ),
        ResponseCache(answers, lifetime=settings.cache_lifetime),
        ContentFilter(ModerationClient(channel)),
        [*bind(CATALOGUE, catalogue), *bind(RECOUNT, UsageReplay(stack.service, database))],
    )
