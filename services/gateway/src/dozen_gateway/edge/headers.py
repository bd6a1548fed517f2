"""The headers of requests and answers: what is passed on, what is kept back, and what the edge adds."""

import re
import time
from collections.abc import Iterable
from functools import lru_cache

from dozen_chassis.admission import PREFIX, REQUEST_ID_HEADER

RawHeaders = Iterable[tuple[bytes, bytes]]

_HOP_BY_HOP = {
    b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection", b"te",
    b"trailer", b"transfer-encoding", b"upgrade",
}  # fmt: skip
_NOT_FOR_SERVICES = _HOP_BY_HOP | {
    b"host", b"content-length", b"expect", b"authorization", b"x-api-key", REQUEST_ID_HEADER.encode(),
}  # fmt: skip
# Besides hop-by-hop headers, those that the edge itself gives to every answer.
_NOT_FOR_CLIENTS = _HOP_BY_HOP | {
    b"date", b"server", REQUEST_ID_HEADER.encode(), b"openai-processing-ms", b"openai-version",
    b"x-client-request-id",
}  # fmt: skip

_VERSION = (b"openai-version", b"2020-10-01")
_CLIENT_REQUEST_ID = re.compile(rb"[ -~]{1,512}")
_PLAIN_CONNECTIONS = {b"", b"keep-alive", b"close"}


def api_key(headers: dict[bytes, bytes]) -> str:
    """Give the key that a request brings, as OpenAI's clients send it or as Anthropic's do."""
    scheme, _, token = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
    if scheme.lower() == "bearer" and (token := token.strip()):
        return token
    return headers.get(b"x-api-key", b"").decode("latin-1").strip()


def for_service(headers: RawHeaders, connection: bytes) -> list[tuple[bytes, bytes]]:
    """Give those headers of a request that its service may see; `connection` is the header of that name."""
    passed = [header for header in headers if _is_for_service(header[0])]
    if connection.lower() in _PLAIN_CONNECTIONS:
        return passed
    dropped = _named_by_connection(headers)
    return [header for header in passed if header[0] not in dropped]


def for_client(headers: RawHeaders) -> list[tuple[bytes, bytes]]:
    """Give those headers of an answer, by names in lower case, that its client may see."""
    passed = [header for header in headers if header[0] not in _NOT_FOR_CLIENTS]
    connection = dict(headers).get(b"connection", b"")
    if connection.lower() in _PLAIN_CONNECTIONS:
        return passed
    dropped = _named_by_connection(headers)
    return [header for header in passed if header[0] not in dropped]


def own(started: float, client_id: bytes) -> list[tuple[bytes, bytes]]:
    """Give what every answer has: the time since it was asked for, and the id that the client gave it."""
    added = [(b"openai-processing-ms", b"%d" % ((time.perf_counter() - started) * 1000)), _VERSION]
    if client_id and _CLIENT_REQUEST_ID.fullmatch(client_id):
        added.append((b"x-client-request-id", client_id))
    return added


@lru_cache(4096)
def _is_for_service(name: bytes) -> bool:
    return name not in _NOT_FOR_SERVICES and not name.startswith(PREFIX.encode())


@lru_cache(256)
def encoded(name: str) -> bytes:
    """Encode the name of a header."""
    return name.encode()


def _named_by_connection(headers: RawHeaders) -> set[bytes]:
    return {
        named.strip().lower()
        for name, value in headers
        if name == b"connection"
        for named in value.split(b",")
    }
