"""Streamed answers: events cut where they end, passed on as they came, and counted."""

import re
from typing import Any

import msgspec

from dozen_chassis.errors import ServiceError
from dozen_inference.upstream import UpstreamFailed, upstream_error
from dozen_inference.usage import Usage

MAX_EVENT_BYTES = 4 * 1024 * 1024

_END = re.compile(rb"\n\n|\r\n\r\n|\r\r")
# Inside a JSON text quotes are escaped, so what a model writes cannot look like one of these.
_NOTABLE = re.compile(rb'"(?:usage|error|finish_reason)":\s*+(?!null)')
_TOKEN = re.compile(rb'"(?:content|text|reasoning_content|reasoning|refusal|arguments)":\s*+"(?!")')


class EventCutter:
    """Cuts a stream of bytes into whole server-sent events, wherever its chunks are split."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, chunk: bytes) -> list[bytes]:
        """Give the events that a chunk completes, each with the blank line at its end."""
        data = self._rest + chunk
        events, start = [], 0
        for end in _END.finditer(data):
            events.append(data[start : end.end()])
            start = end.end()
        self._rest = data[start:]
        if len(self._rest) > MAX_EVENT_BYTES:
            raise UpstreamFailed()
        return events


class _Choice(msgspec.Struct):
    finish_reason: str | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] = msgspec.field(default_factory=list)
    usage: Usage | None = None
    error: Any = None


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
            elif self._passes(event):
                passing.append(event)
            if self.end or self.error:
                break
        return b"".join(passing)

    def _passes(self, event: bytes) -> bool:
        if _TOKEN.search(event):
            self.tokens += 1
        elif event.startswith((b"data: null", b"data:null")):  # llama.cpp, where it has nothing to say yet
            return False
        if not _NOTABLE.search(event):
            return True
        data = event[event.find(b"data:") + 5 :]
        try:
            chunk = msgspec.json.decode(data, type=_Chunk)
        except msgspec.MsgspecError:  # of a kind that we need not understand
            return True
        if chunk.error is not None:
            self.error = upstream_error(200, data)
            return False
        for choice in chunk.choices:
            self.finish_reason = choice.finish_reason or self.finish_reason
        self.usage = chunk.usage or self.usage
        return self._usage_asked or chunk.usage is None or bool(chunk.choices)


def error_event(error: ServiceError) -> bytes:
    """Give the event that ends a stream which cannot be completed."""
    return b"data: " + msgspec.json.encode(error.body()) + b"\n\n"
