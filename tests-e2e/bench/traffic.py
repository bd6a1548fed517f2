"""The load on whole proxies, made and timed by `programs/load.c`, which outruns all of them."""

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bench.compiled import compiled
from bench.load import UnexpectedAnswer
from bench.rounds import REST_CORE, on_core

_GRACE_SECONDS = 150.0  # more than the program itself gives what still runs at the end


@dataclass(frozen=True, slots=True)
class Traffic:
    """How requests are sent."""

    connections: int
    """Each sends its next request once the last is answered, unless there is a rate."""
    seconds: float
    rate: float = 0
    """Requests per second that fall due whether or not earlier ones are answered; zero is no such rate."""
    ramp_seconds: float = 0
    """Over which the connections begin, one after the other."""
    most_answers: int = 0
    """Zero is no limit."""
    leave_after: int = 0
    """Events of a stream after which the client is gone; zero reads it to its end."""


@dataclass(frozen=True, slots=True)
class Times:
    """Times in milliseconds."""

    number: int
    p50: float
    p99: float
    most: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it."""

    answers: int
    events: int
    """Of answers that are event streams."""
    seconds: float
    latency: Times
    first_byte: Times
    gap: Times
    """Between two events of a stream."""

    @property
    def per_second(self) -> float:
        """Answers per second."""
        return self.answers / self.seconds


def drive(port: int, requests: Sequence[bytes], expected: str, traffic: Traffic) -> Outcome:
    """Send requests, each in its turn; raise `UnexpectedAnswer` where one is not answered as it should be."""
    command = [
        str(compiled("load")),
        f"--port={port}",
        f"--expect={expected}",
        f"--connections={traffic.connections}",
        f"--seconds={traffic.seconds}",
        f"--rate={traffic.rate}",
        f"--ramp={traffic.ramp_seconds}",
        f"--answers={traffic.most_answers}",
        f"--leave={traffic.leave_after}",
    ]
    given = b"".join(b"%d\n%s" % (len(request), request) for request in requests)
    with on_core(REST_CORE):
        done = subprocess.run(
            command, input=given, capture_output=True, check=False, timeout=traffic.seconds + _GRACE_SECONDS
        )
    if done.returncode:
        raise UnexpectedAnswer(done.stderr.decode().strip())
    return read_outcome(done.stdout)


def read_outcome(told: bytes) -> Outcome:
    """Read what the program tells."""
    found = json.loads(told.decode("utf-8", "replace"))
    if found["failed"]:
        raise UnexpectedAnswer(
            f"{found['failed']} of {found['failed'] + found['answers']}: {found['failure']}"
        )
    if not found["answers"]:
        raise UnexpectedAnswer("nothing was answered")
    return Outcome(
        answers=found["answers"],
        events=found["events"],
        seconds=found["seconds"],
        latency=_times(found["latency"]),
        first_byte=_times(found["first_byte"]),
        gap=_times(found["gap"]),
    )


def _times(found: Any) -> Times:
    return Times(found["number"], found["p50"] / 1000, found["p99"] / 1000, found["most"] / 1000)
