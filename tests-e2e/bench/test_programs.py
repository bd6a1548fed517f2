"""The upstream and the load of the benchmarks do what is said of them."""

import http.client
import io
import json
import shutil
import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import openai
import pytest

from bench.figures import CannotMeasure
from bench.load import UnexpectedAnswer, post
from bench.path import CHAT, asked, without_key
from bench.traffic import Traffic, drive
from bench.upstream import FAST, FAST_EVENTS, Upstream, slow, upstream
from journey import HELLO

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("cc") is None, reason="needs Linux and a C compiler"
)

PLAIN = without_key(asked(FAST, streamed=False))
STREAMED = without_key(asked(FAST, streamed=True))


@pytest.fixture(scope="module")
def server() -> Iterator[Upstream]:
    """The upstream."""
    with upstream() as found:
        yield found


class _Kept(io.BufferedReader):
    """Stays open, and keeps what it has read beyond an answer, for the next one."""

    def close(self) -> None:
        pass

    def makefile(self, _: str) -> "_Kept":
        return self


def exchange(port: int, *parts: bytes, answers: int = 1) -> list[tuple[int, bytes]]:
    """Send bytes as they are, and read so many answers from the same connection."""
    found = []
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for part in parts:
            connection.sendall(part)
        kept = _Kept(connection.makefile("rb", buffering=0))
        for _ in range(answers):
            response = http.client.HTTPResponse(kept)  # type: ignore[arg-type]  # of a socket it needs no more
            response.begin()
            found.append((response.status, response.read()))
    return found


def events(body: bytes) -> list[Any]:
    """Read the data of an event stream; its end is None."""
    data = [part.removeprefix("data: ") for part in body.decode().split("\n\n")[:-1]]
    return [None if one == "[DONE]" else json.loads(one) for one in data]


def test_a_plain_answer_has_some_500_bytes_and_its_usage(server: Upstream) -> None:
    [(status, body)] = exchange(server.port, PLAIN[0])
    assert (status, json.loads(body)["usage"]["total_tokens"]) == (200, 72)
    assert 400 < len(body) < 600


def test_a_streamed_answer_has_34_events_and_its_usage_where_that_is_asked_for(server: Upstream) -> None:
    silent = post(CHAT, b'{"stream":true,"model":"mock"}', {})
    [(_, with_usage), (_, without)] = exchange(server.port, STREAMED[0], silent, answers=2)
    found = events(with_usage)
    assert len(found) == FAST_EVENTS
    assert found[-1] is None
    assert found[-2]["usage"]["total_tokens"] == 72
    assert len(events(without)) == FAST_EVENTS - 1
    assert b"usage" not in without


def test_a_slow_stream_takes_its_time(server: Upstream) -> None:
    began = time.monotonic()
    [(_, body)] = exchange(
        server.port, post(CHAT, json.dumps(asked(slow(10, 20), streamed=True)[0]).encode(), {})
    )
    assert time.monotonic() - began >= 0.2
    assert len(events(body)) == 24


def test_requests_may_arrive_in_pieces_together_and_large(server: Upstream) -> None:
    large = post(CHAT, b'{"messages":"' + b"x" * 300_000 + b'","stream":false}', {})
    halves = [PLAIN[0][:100], PLAIN[0][100:]]
    found = exchange(server.port, *halves, PLAIN[1] + STREAMED[0] + PLAIN[2], large, answers=5)
    assert [status for status, _ in found] == [200] * 5
    assert b"[DONE]" in found[2][1]
    assert exchange(server.port, b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n\r\n")[0][0] == 411
    assert exchange(server.port, b"GET /elsewhere HTTP/1.1\r\nhost: x\r\n\r\n")[0][0] == 404


def test_the_official_client_understands_it(server: Upstream) -> None:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        [model] = client.models.list()
        answer = client.chat.completions.create(model=model.id, messages=HELLO)
        assert answer.choices[0].finish_reason == "stop"
        chunks = list(client.chat.completions.create(model=model.id, messages=HELLO, stream=True))
        assert chunks[-1].choices[0].finish_reason == "stop"


def test_the_load_is_exact(server: Upstream) -> None:
    before = server.counts()["requests"]
    plain = drive(server.port, PLAIN, '"usage"', Traffic(16, 60, most_answers=1000))
    assert server.counts()["requests"] - before - 1 == plain.answers == plain.latency.number == 1000
    streamed = drive(server.port, STREAMED, "[DONE]", Traffic(8, 60, most_answers=100))
    assert (streamed.answers, streamed.events) == (100, 100 * FAST_EVENTS)
    assert streamed.gap.number == 100 * (FAST_EVENTS - 1)
    assert 0 < plain.latency.p50 <= plain.latency.p99 <= plain.latency.most


def test_requests_at_a_rate_come_at_that_rate(server: Upstream) -> None:
    outcome = drive(server.port, PLAIN, '"usage"', Traffic(8, 0.5, rate=400))
    assert outcome.answers in (200, 201)
    assert outcome.seconds >= 0.45


def test_gaps_and_first_bytes_are_those_of_the_upstream(server: Upstream) -> None:
    requests = without_key(asked(slow(20, 10), streamed=True))
    outcome = drive(server.port, requests, "[DONE]", Traffic(4, 0.1, ramp_seconds=0.05))
    assert outcome.answers == 4
    assert 15 < outcome.gap.p50 < 100
    assert outcome.first_byte.p50 < outcome.latency.p50 - 150


def test_clients_that_leave_are_seen_by_the_upstream(server: Upstream) -> None:
    before = server.counts()["aborted"]
    requests = without_key(asked(slow(20, 100), streamed=True))
    drive(server.port, requests, "", Traffic(5, 10, most_answers=10, leave_after=3))
    assert server.counts()["aborted"] - before == 10


@contextmanager
def scripted(*parts: bytes, closes: bool = False, stall: float = 0) -> Iterator[int]:
    """Serve each request with the same bytes, in parts; perhaps close then, or stall before the first."""
    listener = socket.create_server(("127.0.0.1", 0))
    never = threading.Event()
    is_first = True

    def serve(connection: socket.socket) -> None:
        nonlocal is_first
        with connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while connection.recv(65536):
                if stall and is_first:
                    is_first = False
                    never.wait(stall)
                for part in parts:
                    connection.sendall(part)
                if closes:
                    return

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def bytes_of(text: bytes) -> Sequence[bytes]:
    """Give each byte alone."""
    return [text[place : place + 1] for place in range(len(text))]


CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"18;x=a\r\ndata: 1\r\n\r\ndata: 2\n\ndata\r\n0B\r\n: [DONE]\n\n\n\r\n0\r\nafter: 1\r\n\r\n"
)


@pytest.mark.parametrize("parts", [[CHUNKED], bytes_of(CHUNKED)])
def test_answers_may_be_cut_anywhere(parts: Sequence[bytes]) -> None:
    with scripted(*parts) as port:
        outcome = drive(port, PLAIN, "[DONE]", Traffic(1, 60, most_answers=20))
    assert (outcome.answers, outcome.events) == (20, 3 * 20)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\n\r\nok",
    ],
)
def test_a_server_may_close_between_answers(answer: bytes) -> None:
    with scripted(answer, closes=True) as port:
        assert drive(port, PLAIN, "ok", Traffic(4, 60, most_answers=40)).answers == 40


@pytest.mark.parametrize(
    ("answer", "closes", "said"),
    [
        (b"HTTP/1.1 500 Oh\r\ncontent-length: 2\r\n\r\nok", False, "the status is not 200: HTTP/1.1 500 ok"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nno", False, "lacks what is expected"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nok", True, "the connection was cut"),
    ],
)
def test_a_wrong_answer_is_said(answer: bytes, closes: bool, said: str) -> None:
    with scripted(answer, closes=closes) as port, pytest.raises(UnexpectedAnswer, match=said):
        drive(port, PLAIN, "ok", Traffic(1, 60, most_answers=3))


def test_a_request_that_waits_for_a_connection_counts_its_wait() -> None:
    """Else a server that stalls would look fast, for nothing is sent while it does."""
    with scripted(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", stall=0.3) as port:
        outcome = drive(port, PLAIN, "ok", Traffic(1, 0.4, rate=100))
    assert outcome.latency.most >= 290
    assert outcome.latency.p50 > 50


def test_without_a_compiler_it_is_said_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setattr("bench.compiled._BUILT", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CannotMeasure, match="no C compiler"), upstream():
        pass
