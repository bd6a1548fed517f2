"""The HTTP/1.1 client against real sockets, whatever the server does."""

import asyncio
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest
import uvloop

from dozen_inference.connection import MAX_HEADER_BYTES, Connection, ConnectionLost
from dozen_inference.http1 import BadAnswer, ConnectFailed, HttpClient, HttpError, Response, TimedOut
from dozen_local.ports import free_port
from dozen_testing.conditions import eventually

# The hook that pytest-asyncio wants in its place is for a whole run.
pytestmark = pytest.mark.filterwarnings("ignore:Overriding the:pytest.PytestDeprecationWarning")

OK = b"HTTP/1.1 200 OK\r\n"
HELLO = OK + b"content-length: 5\r\n\r\nhello"
AT_ONCE = 0.25
"""Seconds within which a server is rid of a request that nobody waits for."""


def saying(*parts: bytes, then: str = "") -> Callable[[asyncio.StreamWriter], Awaitable[None]]:
    """Answer with so many writes, and `close` or `reset` the connection after them."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()
        if then == "close":
            writer.close()
        elif then == "reset":
            writer.transport.abort()

    return answer


@dataclass
class RawServer:
    """Reads requests and answers with whatever bytes it is told to."""

    answer: Callable[[asyncio.StreamWriter], Awaitable[None]] = field(default_factory=lambda: saying(HELLO))
    asked: list[bytes] = field(default_factory=list)
    """Heads and bodies of the requests."""
    writers: list[asyncio.StreamWriter] = field(default_factory=list)
    """One for each connection."""
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    left: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the other side closes a connection."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
                self.asked.append(head + await reader.readexactly(int(length or 0)))
                self.arrived.set()
                await self.answer(writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            self.left.set()
        finally:
            writer.close()

    async def is_left(self) -> None:
        async with asyncio.timeout(AT_ONCE):
            await self.left.wait()


@pytest.fixture(params=[asyncio.DefaultEventLoopPolicy, uvloop.EventLoopPolicy], ids=["asyncio", "uvloop"])
def event_loop_policy(request: pytest.FixtureRequest) -> Any:
    """Both loops, because they differ in when they write and how they end."""
    return request.param()


@pytest.fixture
def server() -> RawServer:
    return RawServer()


@pytest.fixture
async def url(server: RawServer) -> AsyncIterator[str]:
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    yield f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    listener.close()
    for writer in server.writers:
        writer.transport.abort()


@pytest.fixture
async def client() -> AsyncIterator[HttpClient]:
    client = HttpClient(connect_seconds=5)
    async with asyncio.timeout(20):
        yield client
    await client.close()


async def send(client: HttpClient, url: str, method: str = "POST", seconds: float = 5) -> Response:
    return await client.send(method, url, [(b"x-asked", b"yes")], b"", first_byte_seconds=seconds)


async def chunks(response: Response, seconds: float = 5) -> list[bytes]:
    found = []
    while chunk := await response.read_chunk(seconds):
        found.append(chunk)
    return found


async def get(client: HttpClient, url: str, method: str = "POST") -> tuple[int, bytes]:
    response = await send(client, url, method)
    try:
        return response.status, b"".join(await chunks(response))
    finally:
        response.close()


async def test_a_request_is_sent_to_the_byte(client: HttpClient, server: RawServer, url: str) -> None:
    headers = [(b"content-type", b"application/json"), (b"x-a", b"b")]
    response = await client.send("POST", url + "/v1/x?a=%20b", headers, b'{"a":1}', first_byte_seconds=5)
    assert (response.status, response.headers) == (200, [(b"content-length", b"5")])
    assert await chunks(response) == [b"hello"]
    host = url.removeprefix("http://").encode()
    assert server.asked == [
        b"POST /v1/x?a=%20b HTTP/1.1\r\nhost: " + host + b"\r\ncontent-type: application/json\r\n"
        b'x-a: b\r\ncontent-length: 7\r\n\r\n{"a":1}'
    ]


async def test_a_connection_is_kept(client: HttpClient, server: RawServer, url: str) -> None:
    for method in ("POST", "GET", "DELETE"):
        assert await get(client, url, method) == (200, b"hello")
    assert len(server.writers) == 1
    together = [await send(client, url) for _ in range(3)]
    for response in together:
        assert await chunks(response) == [b"hello"]
        response.close()
    assert len(server.writers) == 3
    assert await get(client, url) == (200, b"hello")
    assert len(server.writers) == 3


@pytest.mark.parametrize(
    "said",
    [
        OK + b"content-length: 5\r\nconnection: close\r\n\r\nhello",
        b"HTTP/1.0 200 OK\r\ncontent-length: 5\r\n\r\nhello",
        HELLO + HELLO,  # the second one was not asked for
        HELLO + b"x",
    ],
)
async def test_a_connection_is_not_kept_where_it_cannot_be_used_again(
    client: HttpClient, server: RawServer, url: str, said: bytes
) -> None:
    server.answer = saying(said)
    for _ in range(2):
        assert await get(client, url) == (200, b"hello")
        await server.is_left()
        server.left.clear()
    assert len(server.writers) == 2


async def test_what_comes_unasked_ends_a_kept_connection(
    client: HttpClient, server: RawServer, url: str
) -> None:
    assert await get(client, url) == (200, b"hello")
    server.writers[0].write(HELLO.replace(b"hello", b"other"))
    await server.is_left()
    assert await get(client, url) == (200, b"hello")
    assert len(server.writers) == 2


CHUNKED = OK + b"transfer-encoding: chunked\r\n\r\n2\r\nhe\r\n3;a=b\r\nllo\r\n0\r\nx-trailer: 1\r\n\r\n"


@pytest.mark.parametrize(
    ("said", "then", "status", "body"),
    [
        (HELLO, "", 200, b"hello"),
        (HELLO, "close", 200, b"hello"),
        (CHUNKED, "", 200, b"hello"),
        (OK + b"\r\nhello", "close", 200, b"hello"),
        (OK + b"\r\n", "close", 200, b""),
        (OK + b"content-length: 0\r\n\r\n", "", 200, b""),
        (b"HTTP/1.1 204 No Content\r\n\r\n", "", 204, b""),
        (b"HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n", "", 304, b""),
        (b"HTTP/1.1 500 No\r\ncontent-length: 2\r\n\r\nno", "", 500, b"no"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + HELLO, "", 200, b"hello"),
        (
            b"HTTP/1.1 103 Early Hints\r\nlink: x\r\ncontent-length: 9\r\n\r\n" * 3 + CHUNKED,
            "",
            200,
            b"hello",
        ),
    ],
)
@pytest.mark.parametrize("bit_by_bit", [False, True])
async def test_a_response_has_its_body(
    client: HttpClient, server: RawServer, url: str, said: bytes, then: str, status: int, body: bytes,
    bit_by_bit: bool,
) -> None:  # fmt: skip
    server.answer = (
        saying(*(bytes([byte]) for byte in said), then=then) if bit_by_bit else saying(said, then=then)
    )
    response = await send(client, url)
    assert (response.status, b"".join(await chunks(response))) == (status, body)
    assert await response.read_chunk(5) == b""
    assert not {b"link", b"x-trailer"} & dict(response.headers).keys()
    response.close()


@pytest.mark.parametrize("then", ["close", "reset"])
@pytest.mark.parametrize(
    "said",
    [
        OK + b"content-length: 9\r\n\r\nhello",
        OK + b"transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n",
        OK + b"transfer-encoding: chunked\r\n\r\n9\r\nhello",
    ],
)
async def test_a_body_that_is_cut_is_given_so_far_and_then_an_error(
    client: HttpClient, server: RawServer, url: str, said: bytes, then: str
) -> None:
    cut = asyncio.Event()

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(said)
        await cut.wait()
        await saying(then=then)(writer)

    server.answer = answer
    response = await send(client, url)
    assert await response.read_chunk(5) == b"hello"
    cut.set()
    for _ in range(2):
        with pytest.raises(ConnectionLost):
            await response.read_chunk(5)
    response.close()


async def test_a_body_without_an_end_of_its_own_may_not_be_reset(
    client: HttpClient, server: RawServer, url: str
) -> None:
    server.answer = saying(OK + b"\r\nhello")
    response = await send(client, url)
    assert await response.read_chunk(5) == b"hello"
    # Closing with something unread makes the kernel send a reset.
    connection = response._connection
    assert connection._transport is not None
    connection._transport.write(b"unread")
    transport = cast(asyncio.Transport, server.writers[0].transport)
    transport.pause_reading()
    transport.abort()
    with pytest.raises(ConnectionLost):
        await chunks(response)


@pytest.mark.parametrize(
    "said",
    [
        b"nonsense\r\n\r\n",
        b"<html></html>",
        b"\x16\x03\x01\x02\x00",
        b"HTTP/2 200 OK\r\n\r\n",
        b"HTTP/1.1 twohundred OK\r\n\r\n",
        OK + b"no colon\r\n\r\n",
        OK + b"content-length: five\r\n\r\nhello",
        OK + b"content-length: 5\r\ncontent-length: 6\r\n\r\nhello",
        OK + b"transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n",
        OK + b"".join(b"x-%d: %s\r\n" % (number, bytes(100).hex().encode()) for number in range(4000)),
        OK + b"x: " + b"x" * (MAX_HEADER_BYTES + 1),
        b"HTTP/1.1 100 Continue\r\n\r\n" * 10_000,
    ],
)
async def test_what_is_not_http_is_an_error(
    client: HttpClient, server: RawServer, url: str, said: bytes
) -> None:
    server.answer = saying(said)
    with pytest.raises(BadAnswer):
        await send(client, url)
    await server.is_left()


async def test_a_wrong_chunk_is_an_error_after_what_came_before_it(
    client: HttpClient, server: RawServer, url: str
) -> None:
    server.answer = saying(OK + b"transfer-encoding: chunked\r\n\r\n5\r\nhello\r\nmany\r\n")
    response = await send(client, url)
    assert await response.read_chunk(5) == b"hello"
    with pytest.raises(BadAnswer):
        await response.read_chunk(5)
    await server.is_left()


@pytest.mark.parametrize("said", [b"", OK, b"HTTP/1.1 100 Continue\r\n\r\n"])
async def test_headers_that_do_not_come_are_not_waited_for(
    client: HttpClient, server: RawServer, url: str, said: bytes
) -> None:
    server.answer = saying(said)
    with pytest.raises(TimedOut):
        await send(client, url, seconds=0.05)
    await server.is_left()


async def test_a_pause_that_is_too_long_ends_a_response(
    client: HttpClient, server: RawServer, url: str
) -> None:
    server.answer = saying(OK + b"content-length: 9\r\n\r\nhello")
    response = await send(client, url)
    assert await response.read_chunk(5) == b"hello"
    with pytest.raises(TimedOut):
        await response.read_chunk(0.05)
    response.close()
    await server.is_left()


async def test_a_server_waits_for_a_reader_that_does_not_read(
    client: HttpClient, server: RawServer, url: str
) -> None:
    part, parts = bytes(64 * 1024), 256
    sent = 0

    async def answer(writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(OK + b"content-length: %d\r\n\r\n" % (len(part) * parts))
        for _ in range(parts):
            writer.write(part)
            await writer.drain()
            sent += 1

    server.answer = answer
    response = await send(client, url)

    async def stopped() -> bool:
        return response._connection._is_paused or sent == parts

    await eventually(stopped)
    assert response._connection._unread < 1024 * 1024
    assert sent < parts
    assert sum(map(len, await chunks(response))) == len(part) * parts
    response.close()
    assert await get_after(client, server, url) == (200, b"hello")
    assert len(server.writers) == 1  # it goes on where it was made to wait


async def get_after(client: HttpClient, server: RawServer, url: str) -> tuple[int, bytes]:
    server.answer = saying(HELLO)
    return await get(client, url)


@pytest.mark.parametrize("said", [[], [OK], [OK + b"content-length: 5\r\n\r\n"], [HELLO[:-1]]])
async def test_a_request_that_nobody_waits_for_is_ended_at_once(
    client: HttpClient, server: RawServer, url: str, said: Sequence[bytes]
) -> None:
    server.answer = saying(*said)

    async def ask() -> None:
        response = await send(client, url)
        try:
            await chunks(response)
        finally:
            response.close()

    asking = asyncio.ensure_future(ask())
    await server.arrived.wait()
    asking.cancel()
    await server.is_left()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert not client._busy


async def test_a_response_that_is_closed_gives_nothing_of_the_next_one(
    client: HttpClient, server: RawServer, url: str
) -> None:
    first = await send(client, url)
    await chunks(first)
    first.close()
    second = await send(client, url)
    first.close()
    with pytest.raises(ConnectionLost):
        await first.read_chunk(5)
    assert await chunks(second) == [b"hello"]
    second.close()
    assert await get(client, url) == (200, b"hello")
    assert len(server.writers) == 1


async def test_a_connection_that_was_kept_for_too_long_is_not_used(
    client: HttpClient, server: RawServer, url: str
) -> None:
    assert await get(client, url) == (200, b"hello")
    ((kept,),) = client._idle.values()
    kept.idle_since -= 5
    assert await get(client, url) == (200, b"hello")
    assert len(server.writers) == 2


async def test_a_kept_connection_that_was_closed_is_not_used(
    client: HttpClient, server: RawServer, url: str
) -> None:
    assert await get(client, url) == (200, b"hello")
    ((kept,),) = client._idle.values()
    server.writers[0].close()

    async def closed() -> bool:
        return kept.is_closed

    await eventually(closed)
    assert await get(client, url) == (200, b"hello")
    assert len(server.writers) == 2


@pytest.mark.parametrize(("method", "again"), [("GET", True), ("POST", False)])
async def test_a_kept_connection_that_closes_as_it_is_used_is_made_up_for_where_that_is_safe(
    client: HttpClient, server: RawServer, url: str, method: str, again: bool
) -> None:
    assert await get(client, url, method) == (200, b"hello")

    async def answer(writer: asyncio.StreamWriter) -> None:
        await saying(*([HELLO] if len(server.writers) > 1 else []), then="close")(writer)

    server.answer = answer
    if again:
        assert await get(client, url, method) == (200, b"hello")
    else:
        with pytest.raises(ConnectionLost):
            await get(client, url, method)
    assert len(server.asked) == 2 + again


@pytest.mark.parametrize("said", [b"", OK])
async def test_a_new_connection_that_closes_is_an_error(
    client: HttpClient, server: RawServer, url: str, said: bytes
) -> None:
    server.answer = saying(said, then="close")
    with pytest.raises(ConnectionLost):
        await get(client, url, "GET")
    assert len(server.asked) == 1


async def test_a_large_body_arrives(client: HttpClient, server: RawServer, url: str) -> None:
    body = bytes(range(256)) * 32 * 1024
    response = await client.send("POST", url, [], body, first_byte_seconds=10)
    response.close()
    assert server.asked[0].endswith(b"\r\n\r\n" + body)


async def test_a_connection_is_not_kept_where_the_server_has_not_read_the_request(client: HttpClient) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        cast(asyncio.Transport, writer.transport).pause_reading()
        writer.write(HELLO)
        writers.append(writer)

    writers: list[asyncio.StreamWriter] = []
    async with await asyncio.start_server(serve, "127.0.0.1", 0) as listener:
        url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        response = await client.send("POST", url, [], bytes(32 * 1024 * 1024), first_byte_seconds=10)
        assert await chunks(response) == [b"hello"]
        response.close()
        assert not client._idle
        writers[0].transport.abort()


@pytest.mark.parametrize(
    "header", [(b"x-a", b"1\r\nx-b: 2"), (b"x-a", b"1\n"), (b"x\r\n", b"1"), (b"x", b"\r")]
)
async def test_a_header_cannot_bring_another_one(
    client: HttpClient, server: RawServer, url: str, header: tuple[bytes, bytes]
) -> None:
    with pytest.raises(ValueError, match="end of a line"):
        await client.send("POST", url, [header], b"", first_byte_seconds=5)
    assert not server.writers


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/", "127.0.0.1", "http:///"])
async def test_only_http_is_spoken(client: HttpClient, url: str) -> None:
    with pytest.raises(ValueError, match="not an HTTP URL"):
        await send(client, url)


async def test_nobody_there_is_an_error(client: HttpClient) -> None:
    with pytest.raises(ConnectFailed):
        await send(client, f"http://127.0.0.1:{free_port()}")
    with pytest.raises(ConnectFailed):
        await send(client, "http://no-such-host.invalid")


async def test_a_connection_that_is_not_used_is_closed(server: RawServer, url: str) -> None:
    client = HttpClient(connect_seconds=5, keep_alive_seconds=0.05)
    assert await get(client, url) == (200, b"hello")
    async with asyncio.timeout(5):
        await server.left.wait()

    async def forgotten() -> bool:
        return not client._idle and client._ticking is None

    await eventually(forgotten)
    assert await get(client, url) == (200, b"hello")
    await client.close()


async def test_a_client_that_is_closed_closes_its_connections(
    client: HttpClient, server: RawServer, url: str
) -> None:
    assert await get(client, url) == (200, b"hello")
    await client.close()
    await server.is_left()
    server.left.clear()
    server.answer = saying(OK + b"content-length: 5\r\n\r\n")
    response = await send(client, url)
    await client.close()
    with pytest.raises(HttpError):
        await response.read_chunk(5)
    response.close()
    await server.is_left()


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for localhost with its key, signed by itself."""
    path = tmp_path_factory.mktemp("tls") / "localhost.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-keyout", path, "-out", path.with_suffix(".crt"), "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost"],
        check=True, capture_output=True,
    )  # fmt: skip
    with path.open("ab") as file:
        file.write(path.with_suffix(".crt").read_bytes())
    return path


@pytest.fixture
async def tls_url(server: RawServer, certificate: Path) -> AsyncIterator[str]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    listener = await asyncio.start_server(server.serve, "localhost", 0, ssl=context)
    yield f"https://localhost:{listener.sockets[0].getsockname()[1]}"
    listener.close()
    for writer in server.writers:
        writer.transport.abort()


async def test_https_is_spoken_with_a_server_that_is_known(
    client: HttpClient, server: RawServer, tls_url: str, certificate: Path
) -> None:
    client._tls = ssl.create_default_context(cafile=str(certificate))
    server.answer = saying(OK + b"content-length: 300000\r\n\r\n" + bytes(300_000))
    for _ in range(2):
        status, body = await get(client, tls_url)
        assert (status, len(body)) == (200, 300_000)
    assert len(server.writers) == 1
    server.answer = saying(OK)
    asking = asyncio.ensure_future(send(client, tls_url))
    server.arrived.clear()
    await server.arrived.wait()
    asking.cancel()
    await server.is_left()


async def test_a_server_that_nobody_vouches_for_is_asked_nothing(
    client: HttpClient, server: RawServer, tls_url: str
) -> None:
    with pytest.raises(ConnectFailed, match="certificate"):
        await send(client, tls_url)
    assert not server.asked


async def test_only_connections_to_the_same_server_are_used_again(
    client: HttpClient, server: RawServer, url: str
) -> None:
    assert await get(client, url) == (200, b"hello")
    assert await get(client, url.replace("127.0.0.1", "localhost")) == (200, b"hello")
    assert len(server.writers) == 2
    kept: list[Connection] = [one for several in client._idle.values() for one in several]
    assert len(kept) == 2
