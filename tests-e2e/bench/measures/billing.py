"""What it costs a request that its usage is reported, and committed, before it is answered."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from bench import meter
from bench.figures import Effort, Figure
from bench.load import Outcome, Requests, load, post
from bench.rounds import REST_CORE, cpu_seconds, in_turns, middle
from bench.servers import databases_and_nats, program, start
from dozen_chassis.admission import Admission
from dozen_local.platform import Platform

_MANY, _FEW = 64, 4
"""Connections: as many as keep the service busy, for its CPU; and few, for the time that a request takes."""
_HOUR = 3600


@dataclass(frozen=True)
class _Round:
    outcome: Outcome
    service_seconds: float
    servers_seconds: float

    @property
    def service_milliseconds(self) -> float:
        return self.service_seconds / self.outcome.answers * 1000

    @property
    def servers_milliseconds(self) -> float:
        return self.servers_seconds / self.outcome.answers * 1000


def measure(effort: Effort) -> Sequence[Figure]:
    """Send a service requests that it bills, and others that it does not."""
    with databases_and_nats([meter.SERVICE, "credits"]) as platform:
        credits = platform.processes["credits"]
        start(credits, core=REST_CORE)
        credits.stop()  # its stream stays, and takes what is reported
        port = platform.layout.http_port(meter.SERVICE)
        with program(platform, "bench.meter", port=port, service=meter.SERVICE) as process:
            pid = start(process)
            paths = {"billed": meter.BILLED, "free": meter.FREE}
            requests = {name: _requests(platform, path) for name, path in paths.items()}
            servers = [platform.postgres.process.pid, platform.nats.process.pid]
            variants = {
                f"{name} {connections}": partial(
                    _round, pid, [one for one in servers if one], requests[name], connections, effort.seconds
                )
                for name in paths
                for connections in (_MANY, _FEW)
            }
            for warm_up in variants.values():
                warm_up()
            found = in_turns(effort.rounds, variants)
    billed, free = found[f"billed {_MANY}"], found[f"free {_MANY}"]

    def more(of: str) -> float:
        return middle(billed, lambda one: getattr(one, of)) - middle(free, lambda one: getattr(one, of))

    def latency(name: str) -> float:
        return middle(found[f"{name} {_FEW}"], lambda one: one.outcome.median_milliseconds)

    return [
        Figure(
            "billing.cpu_milliseconds_per_request", more("service_milliseconds"), at_most=0.05,
            note=f"of the service; {middle(free, lambda one: one.service_milliseconds):.3f} without",
        ),
        Figure(
            "billing.servers_cpu_milliseconds_per_request", more("servers_milliseconds"),
            note="of PostgreSQL and NATS",
        ),
        Figure(
            "billing.latency_milliseconds", latency("billed") - latency("free"), at_most=5,
            note=f"median, {_FEW} connections; {latency('free'):.2f} without",
        ),
        Figure("billing.billed_per_second", middle(billed, lambda one: one.outcome.per_second)),
        Figure("billing.free_per_second", middle(free, lambda one: one.outcome.per_second)),
    ]  # fmt: skip


def _requests(platform: Platform, path: str) -> Requests:
    key = platform.credentials.admission_key(meter.SERVICE)
    facts = meter.facts("account0", "lease_0")
    headers = [
        Admission("account0", "key_0", f"req_{number:032d}", f"POST {path}", facts).headers(
            key, int(time.time()) + _HOUR
        )
        for number in range(_MANY)
    ]
    port = platform.layout.http_port(meter.SERVICE)
    return Requests(port, [post(path, b"{}", one) for one in headers], b'{"answer"')


def _round(
    service: int, servers: Sequence[int], requests: Requests, connections: int, seconds: float
) -> _Round:
    before, servers_before = cpu_seconds(service), sum(map(cpu_seconds, servers))
    outcome = load(requests, connections=connections, seconds=seconds)
    return _Round(outcome, cpu_seconds(service) - before, sum(map(cpu_seconds, servers)) - servers_before)
