"""The arithmetic of the figures of whole proxies."""

import json

import pytest

from bench.figures import Figure
from bench.load import UnexpectedAnswer
from bench.loads import Targets, figures, ratios
from bench.path import DIRECT, Found, Round, System, asked, with_headers, without_key
from bench.traffic import Outcome, Times, read_outcome

EDGE = System("edge", 1, {"gateway": 1, "chat": 2}, without_key, behind={"postgres": 3})
OTHER = System("litellm", 2, {"litellm": 4}, without_key)
NONE = Times(0, 0, 0, 0)


def outcome(answers: int, *, events: int = 0, p50: float = 1, p99: float = 2, gap: Times = NONE) -> Outcome:
    """Of two seconds."""
    return Outcome(answers, events, 2, Times(answers, p50, p99, 3), Times(answers, 0.5, 1, 2), gap)


@pytest.fixture
def found() -> Found:
    """Rounds of us and of another, of which the middle one counts."""
    found = Found()
    ours = [
        Round(outcome(answers, p99=answers / 1000), {"gateway": 1.0, "chat": 2.0}, {"postgres": 0.5})
        for answers in (10_000, 1_000, 20_000)
    ]
    theirs = [Round(outcome(100), {"litellm": 1.0}, {})]
    found.add("plain", {"edge": ours, "litellm": theirs})
    found.add("stream", {"edge": [Round(outcome(1000, events=34_000), {"gateway": 0.2, "chat": 0.3}, {})]})
    slow = outcome(10, events=10_000, gap=Times(10, 20, 25, 130))
    found.add("slow", {"edge": [Round(slow, {"gateway": 0.2, "chat": 0.3}, {})]})
    found.add("slow_1000", {"edge": [Round(slow, {"gateway": 0.2, "chat": 0.3}, {})]})
    half = [Round(outcome(100, p50=1.5, p99=6), {"gateway": 0, "chat": 0}, {})]
    found.add("half", {"edge": half, DIRECT: [Round(outcome(100, p50=0.25, p99=1), {"upstream": 0}, {})]})
    found.memory = {"edge": (100, 101)}
    return found


def by_name(made: list[Figure]) -> dict[str, Figure]:
    """Give figures by their names."""
    return {figure.name: figure for figure in made}


def test_figures_are_medians_of_all_processes_of_a_system(found: Found) -> None:
    made = by_name(
        figures("edge", found, EDGE, Targets(plain_cpu=0.2, worst_gap=50, added_p50=1, added_p99=5))
    )
    values = {name: figure.value for name, figure in made.items()}
    assert values == pytest.approx(
        {
            "edge.plain.rps": 5_000,
            "edge.plain.cpu_per_1000": 0.3,
            "edge.plain.p50_ms": 1,
            "edge.plain.p99_ms": 10,
            "edge.stream.rps": 500,
            "edge.stream.cpu_per_1000": 0.5,
            "edge.stream.p50_ms": 1,
            "edge.stream.p99_ms": 2,
            "edge.stream.first_byte_p50_ms": 0.5,
            "edge.slow.cpu_per_1000_chunks": 0.05,
            "edge.slow.gap_p99_ms": 25,
            "edge.slow.first_byte_p50_ms": 0.5,
            "edge.slow_1000.cpu_per_1000_chunks": 0.05,
            "edge.slow_1000.worst_gap_ms": 30,
            "edge.added_p50_ms": 1.25,
            "edge.added_p99_ms": 5,
            "edge.memory_start_mebibytes": 100,
            "edge.memory_after_mebibytes": 101,
        }
    )
    assert made["edge.plain.cpu_per_1000"].note == (
        "CPU s: gateway 0.100, chat 0.200; behind it: postgres 0.050"
    )
    unmet = [name for name, figure in made.items() if not figure.is_met]
    assert unmet == ["edge.plain.cpu_per_1000", "edge.added_p50_ms"]


def test_a_ratio_is_of_answers_per_second_of_cpu_time_where_both_were_measured(found: Found) -> None:
    [ratio] = ratios("edge", found, EDGE, OTHER, 50)
    assert ratio.name == "edge.plain.rps_ratio_vs_litellm"
    assert ratio.value == pytest.approx(10 / 0.3)
    assert not ratio.is_met


def test_what_another_proxy_calls_a_path_and_a_model_is_written_into_the_request() -> None:
    [request, *_] = with_headers({"x-key": "1"}, "/elsewhere", "theirs::{}")(asked("mock", streamed=True))
    head, _, body = request.partition(b"\r\n\r\n")
    assert head.startswith(b"POST /elsewhere HTTP/1.1\r\n")
    assert b"\r\nx-key: 1\r\n" in head
    assert json.loads(body)["model"] == "theirs::mock"


def test_all_requests_differ() -> None:
    requests = without_key(asked("mock", streamed=False))
    assert len(set(requests)) == len(requests) > 100


def test_an_outcome_is_read_in_milliseconds() -> None:
    times = {"number": 2, "p50": 1500, "p99": 2500, "most": 2600}
    told = {"answers": 4, "failed": 0, "events": 8, "reconnects": 0, "seconds": 2, "failure": ""}
    told |= {"latency": times, "first_byte": times, "gap": times}
    found = read_outcome(json.dumps(told).encode())
    assert (found.per_second, found.events, found.latency) == (2, 8, Times(2, 1.5, 2.5, 2.6))
    with pytest.raises(UnexpectedAnswer, match="1 of 5: Oh"):
        read_outcome(json.dumps(told | {"failed": 1, "failure": "Oh"}).encode())
    with pytest.raises(UnexpectedAnswer, match="nothing"):
        read_outcome(json.dumps(told | {"answers": 0}).encode())
