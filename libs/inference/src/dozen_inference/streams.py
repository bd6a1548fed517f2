"""Streamed answers: events cut where they end, passed on as they came, and counted."""

import logging
import re
from typing import Any

import msgspec

from dozen_chassis.errors import ServiceError
from dozen_inference.upstream import UNREADABLE, UpstreamFailed, upstream_error
from dozen_inference.usage import Usage, read_usage

log = logging.getLogger(__name__)

MAX_EVENT_BYTES = 4 * 1024 * 1024

_END = re.compile(rb"\n\n|\r\n\r\n|\r\r")
# Inside a JSON text quotes are escaped, so what a model writes cannot look like one of these.
_NOTABLE = re.compile(rb'"(?:usage|error|finish_reason)":\s*+(?!null)|"object":\s*+"error"')
_TOKEN = re.compile(rb'"(?:content|text|reasoning_content|reasoning|refusal|arguments)":\s*+"(?!")')
_FIELDS = (b":", b"event:", b"id:", b"retry:", b"\n", b"\r")

DONE = b"data: [DONE]\n\n"


class EventCutter:
    """Cuts a stream of bytes into whole server-sent events, wherever its chunks are split."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        """Of an event whose end has not come."""
        self._size = 0

    def feed(self, chunk: bytes) -> list[bytes]:
        """Give the events that a chunk completes, each with the blank line at its end."""
        if not self._parts and 0 < chunk.find(b"\n\n") == len(chunk) - 2 and b"\r" not in chunk:
            return [chunk]  # mostly a chunk is an event
        events, start = [], 0
        # Only where an end can be: a large event is looked through once, and not with each of its parts.
        if _END.search(b"".join([part[-3:] for part in self._parts[-3:]]) + chunk):
            data = b"".join([*self._parts, chunk])
            for end in _END.finditer(data):
                events.append(data[start : end.end()])
                start = end.end()
            chunk = data[start:]
            self._parts, self._size = [], 0
        if chunk:
            self._parts.append(chunk)
            self._size += len(chunk)
        if self._size > MAX_EVENT_BYTES:
            raise UpstreamFailed()
        return events


class _Choice(msgspec.Struct):
    finish_reason: str | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] = []
    usage: Any = None
    error: Any = None
    object: Any = None


class Tally:
    """What passed through of one streamed answer, and how it ended."""

    def __init__(self, *, usage_asked: bool) -> None:
        self.usage: Usage | None = None
        self.finish_reason = ""
        self.tokens = 0
        """Deltas that held text: about as many as tokens."""
        self.end = b""
        """The event that ends a complete stream, once it came."""
        self.error: ServiceError | None = None
        self._usage_asked = usage_asked

    def take(self, events: list[bytes]) -> bytes:
        """Count events up to an end or an error; give those that are for the client."""
        passing = []
        for event in events:
            if event.startswith((b"data: [DONE]", b"data:[DONE]")):
                self.end = event
            elif event.startswith((b"data: null", b"data:null")):
                pass  # llama.cpp, where it has nothing to say yet
            elif not _is_event(event):
                log.warning("the inference server sent %r in a stream of events", event[:100])
                self.error = UpstreamFailed()
            elif self._passes(event):
                passing.append(event)
            if self.end or self.error:
                break
        return b"".join(passing)

    def _passes(self, event: bytes) -> bool:
        if _TOKEN.search(event):
            self.tokens += 1
        if not _NOTABLE.search(event):
            return True
        data = event[event.find(b"data:") + 5 :]
        try:
            chunk = msgspec.json.decode(data, type=_Chunk)
        except UNREADABLE:  # of a kind that we need not understand
            return True
        if chunk.error is not None or chunk.object == "error":
            self.error = upstream_error(200, data)
            return False
        for choice in chunk.choices:
            self.finish_reason = choice.finish_reason or self.finish_reason
        self.usage = read_usage(chunk.usage) or self.usage
        return self._usage_asked or chunk.usage is None or bool(chunk.choices)


def _is_event(event: bytes) -> bool:
    """Tell whether it looks like one, and its data, where it begins with that, like an object."""
    if event.startswith(b"data: {"):
        return True
    if not event.startswith(b"data:"):
        return event.startswith(_FIELDS)
    data = event[5:].lstrip()
    return not data or data.startswith((b"{", b"data:"))


def error_event(error: ServiceError) -> bytes:
    """Give the event that ends a stream which cannot be completed."""
    return b"data: " + msgspec.json.encode(error.body()) + b"\n\n"
