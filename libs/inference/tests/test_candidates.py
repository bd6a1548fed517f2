"""Who may answer a request, in which order, and what a peer is told of it."""

from dataclasses import replace

from dozen_chassis.admission import Admission, verify
from dozen_inference.candidates import Candidate, candidates, for_peer, is_peers

ADMISSION = Admission(
    "acme",
    "key1",
    "req_1",
    "POST /v1/messages",
    {
        "model": "acme/big",
        "price": "price-1",
        "deployments": "big-2,big-1",
        "fallbacks": "small-1 acme/small price-2,tiny-1 tiny price-3",
        "reservation": "lease-1",
        "max-tokens": "100",
        "filter": "on",
        "cache": "60",
    },
)


def test_the_gateways_order_is_kept_and_fallbacks_come_last() -> None:
    assert candidates(ADMISSION) == [
        Candidate("big-2", "acme/big", "price-1"),
        Candidate("big-1", "acme/big", "price-1"),
        Candidate("small-1", "acme/small", "price-2"),
        Candidate("tiny-1", "tiny", "price-3"),
    ]


def test_fallbacks_alone_are_enough() -> None:
    facts = {**ADMISSION.facts, "deployments": ""}
    assert candidates(replace(ADMISSION, facts=facts))[0] == Candidate("small-1", "acme/small", "price-2")


def test_an_admission_that_names_nobody_is_for_whatever_is_beside_the_service() -> None:
    assert candidates(replace(ADMISSION, facts={})) == [Candidate("", "", "")]


def test_a_peer_neither_settles_nor_falls_back() -> None:
    asked = for_peer(ADMISSION, Candidate("big-1", "acme/big", "price-1"), "POST /v1/chat/completions")
    headers = asked.headers(b"k" * 32, 2_000_000_000)
    taken = verify(headers, "POST /v1/chat/completions", b"k" * 32, 1_900_000_000)
    assert taken == asked
    assert taken.facts == {"model": "acme/big", "deployments": "big-1", "peer": "1"}
    assert (taken.account, taken.key, taken.request_id) == ("acme", "key1", "req_1")
    assert is_peers(taken)
    assert not is_peers(ADMISSION)
