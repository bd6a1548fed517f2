"""The payloads of a stream of server-sent events, wherever its chunks are split."""

import re

from dozen_inference.streams import EventCutter

_DATA = re.compile(rb"(?:\A|[\r\n])data: ?([^\r\n]*)")


class EventData:
    """Gives the data of each event of a stream; comments and events without data give nothing."""

    def __init__(self) -> None:
        self._cutter = EventCutter()

    def feed(self, chunk: bytes) -> list[bytes]:
        """Give the data of the events that a chunk completes."""
        return [data for event in self._cutter.feed(chunk) if (data := event_data(event))]


def event_data(event: bytes) -> bytes:
    """Give the data of one event."""
    return b"\n".join(_DATA.findall(event))
