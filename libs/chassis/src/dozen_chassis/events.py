"""Events on the wire: subjects, headers and payloads."""

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Self

from google.protobuf.message import Message

from dozen_chassis.telemetry import current_trace_headers

ID_HEADER = "Nats-Msg-Id"
TIME_HEADER = "ce-time"


def subject(event: Message | type[Message]) -> str:
    """Give the subject of an event: the full name of its message."""
    return str(event.DESCRIPTOR.full_name)


def stream(event: Message | type[Message]) -> str:
    """Give the name of the stream that holds an event: its domain in capitals, such as `CREDITS`."""
    return subject(event).split(".")[1].upper()


@dataclass(frozen=True, slots=True)
class Envelope:
    """An event, ready to be stored or sent."""

    id: str
    subject: str
    payload: bytes
    headers: Mapping[str, str]

    @classmethod
    def seal(cls, event: Message, subject_suffix: str = "") -> Self:
        """Give an event its id, time and the current trace context."""
        identifier = str(uuid.uuid4())
        headers = {
            ID_HEADER: identifier,
            TIME_HEADER: datetime.now(UTC).isoformat(),
            **current_trace_headers(),
        }
        return cls(identifier, subject(event) + subject_suffix, event.SerializeToString(), headers)

    def headers_json(self) -> str:
        """Give the headers as a JSON object."""
        return json.dumps(dict(self.headers))


@dataclass(frozen=True, slots=True)
class Delivery:
    """What a handler may know of the message that brought its event."""

    id: str
    """Id of the event; the same at every redelivery."""
    attempt: int
    """1 at the first delivery."""
    published_at: datetime
