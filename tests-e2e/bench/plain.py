"""A trivial answer from the server that services run on: what is measured against it is ours alone."""

import argparse
import asyncio
from typing import cast

import uvicorn
import uvloop
from starlette.types import Receive, Scope, Send

BODY = b'{"plain":"' + b"x" * 900 + b'"}'
"""About as long as an answer to a decision."""
_HEADERS = [(b"content-type", b"application/json"), (b"content-length", str(len(BODY)).encode())]


async def answer(scope: Scope, receive: Receive, send: Send) -> None:
    """Read the body of a request and answer it."""
    while (await receive()).get("more_body", False):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
    await send({"type": "http.response.body", "body": BODY})


class _Bare(asyncio.Protocol):
    """Not even HTTP: answers whatever comes, so that the client is what limits the rate."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass of it

    def data_received(self, data: bytes) -> None:
        self._transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(BODY) + BODY)


async def _serve_bare(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(_Bare, "127.0.0.1", port, backlog=2048)
    await server.serve_forever()


def main() -> None:
    """Serve until terminated."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--bare", action="store_true", help="without HTTP and ASGI")
    arguments = parser.parse_args()
    if arguments.bare:
        uvloop.run(_serve_bare(arguments.port))
    else:
        config = uvicorn.Config(
            answer,
            host="127.0.0.1",
            port=arguments.port,
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
        )
        uvloop.run(uvicorn.Server(config).serve())


if __name__ == "__main__":
    main()
