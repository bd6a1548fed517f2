"""The NATS users of the services and the subjects that each may use."""

import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml

REVIEWED_FILE = Path(__file__).parents[3] / "nats" / "users.yaml"


@dataclass(frozen=True)
class NatsUser:
    """A user with the subjects it may publish to and subscribe to."""

    name: str
    password: str
    publish: Sequence[str] = (">",)
    subscribe: Sequence[str] = (">",)


@dataclass(frozen=True)
class Traffic:
    """What a service publishes and consumes, as the reviewed file says."""

    publishes: Sequence[str] = ()
    """Subjects of other domains."""
    consumes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Domains to the events taken from them."""
    tells: Sequence[str] = ()
    """Facts that it tells without a stream."""
    hears: Sequence[str] = ()
    """Facts that it listens to."""


def read_traffic(path: Path = REVIEWED_FILE) -> dict[str, Traffic]:
    """Read the reviewed file."""
    return {service: Traffic(**facts or {}) for service, facts in yaml.safe_load(path.read_text()).items()}


def service_users(passwords: Mapping[str, str] | None = None, path: Path = REVIEWED_FILE) -> list[NatsUser]:
    """Give the user of each service; a service without a given password gets a random one."""
    return [
        NatsUser(
            name=service,
            password=(passwords or {}).get(service) or secrets.token_urlsafe(24),
            publish=tuple(publish_subjects(service, traffic)),
            subscribe=(f"_INBOX_{service}.>", *(f"facts.{fact}" for fact in traffic.hears)),
        )
        for service, traffic in read_traffic(path).items()
    ]


def publish_subjects(service: str, traffic: Traffic) -> Iterator[str]:
    """List the subjects a service may publish to: its events, and the part of JetStream's API it needs."""
    yield f"dozen.{service}.v1.>"
    yield from traffic.publishes
    yield from (f"facts.{fact}" for fact in traffic.tells)
    yield "$JS.API.INFO"
    for verb in ("CREATE", "UPDATE"):
        yield f"$JS.API.STREAM.{verb}.{service.upper()}"
    for stream in sorted({service.upper(), *map(str.upper, traffic.consumes)}):
        yield f"$JS.API.STREAM.INFO.{stream}"
    for domain, events in traffic.consumes.items():
        for event in events:
            consumer = f"{domain.upper()}.{service}-{event}"
            yield f"$JS.API.CONSUMER.CREATE.{consumer}.dozen.{domain}.v1.{event}"
            yield f"$JS.API.CONSUMER.CREATE.{consumer}.dozen.{domain}.v1.{event}.>"
            yield f"$JS.API.CONSUMER.DURABLE.CREATE.{consumer}"
            yield f"$JS.API.CONSUMER.INFO.{consumer}"
            yield f"$JS.API.CONSUMER.MSG.NEXT.{consumer}"
            yield f"$JS.ACK.{consumer}.>"
