"""What handlers read from a delivery where its event does not tell."""

from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp

from dozen_chassis.events import Delivery


def time_of(time: Timestamp, delivery: Delivery) -> datetime:
    """Give a time that an event tells, or else that at which it was published."""
    return time.ToDatetime(UTC) if time.ByteSize() else delivery.published_at
