"""Events on the wire: subjects, headers and payloads."""

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Self

from google.protobuf.message import Message

from dozen_chassis.telemetry import current_trace_headers

ID_HEADER = "Nats-Msg-Id"
TIME_HEADER = "ce-time"
MERGE_HEADER = "dozen-merge"
"""Of an event that has lists only, so that two of them are one when their bytes are put together."""


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
    def seal(cls, event: Message, subject_suffix: str = "", *, may_merge: bool = False) -> Self:
        """Give an event its id, time and the current trace context."""
        identifier = str(uuid.uuid4())
        headers = {
            ID_HEADER: identifier,
            TIME_HEADER: datetime.now(UTC).isoformat(),
            **current_trace_headers(),
        }
        if may_merge:
            headers[MERGE_HEADER] = "1"
        return cls(identifier, subject(event) + subject_suffix, event.SerializeToString(), headers)

    def may_merge(self, other: "Envelope") -> bool:
        """Tell whether another event can become one with this one."""
        return (
            self.subject == other.subject and MERGE_HEADER in self.headers and MERGE_HEADER in other.headers
        )

    def merged(self, others: Sequence["Envelope"]) -> "Envelope":
        """Become one with others; two protobuf messages are merged by putting their bytes together.

        The id is of all of them: what was published once with others may be published again without them.
        """
        identifier = str(uuid.uuid5(uuid.UUID(self.id), ",".join(other.id for other in others)))
        payload = b"".join([self.payload, *(other.payload for other in others)])
        return Envelope(identifier, self.subject, payload, {**self.headers, ID_HEADER: identifier})

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
