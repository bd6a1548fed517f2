"""Where deployments are, whatever the catalogue says next."""

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from dozen_chassis.admission import Admission
from dozen_inference.formats.anthropic.format import AnthropicFormat
from dozen_inference.http1 import HttpClient
from dozen_inference.places import Deployment, Link, Places

OURS = Deployment("ours", "small", "http://chat-a:8080")
THEIRS = Deployment("theirs", "small", "http://chat-b:8080", upstream_model="theirs/small")
FAR = Deployment(
    "far",
    "claude",
    "http://chat-a:8080",
    format="anthropic",
    url="https://far.test",
    upstream_model="claude-9",
    secret="anthropic",
    max_requests=3,
)
CATALOGUE = {one.id: one for one in (OURS, THEIRS, FAR)}


@pytest.fixture
def own() -> frozenset[str]:
    return frozenset({"ours"})


@pytest.fixture
async def places(own: frozenset[str]) -> AsyncIterator[Places]:
    async with HttpClient(connect_seconds=1) as client:
        yield Places(client, "http://127.0.0.1:9", own, most_requests=10, idle_seconds=1)


def found(places: Places, deployment: str, admission: Admission) -> Link:
    link = places.link(deployment, admission)
    assert link is not None
    return link


def test_until_something_is_known_all_are_beside_the_service(places: Places, admission: Admission) -> None:
    assert found(places, "whatever", admission).upstream is places.own
    places.learn(CATALOGUE)
    assert places.link("whatever", admission) is None
    assert found(places, "ours", admission).upstream is places.own


def test_one_of_another_pod_is_asked_there(places: Places, admission: Admission) -> None:
    places.learn(CATALOGUE)
    link = found(places, "theirs", admission)
    assert link.is_peer
    assert link.upstream is not places.own
    assert link.model == ""  # it is the peer that knows how its server calls it


def test_what_a_peer_passes_on_is_not_passed_on_again(places: Places, admission: Admission) -> None:
    places.learn(CATALOGUE)
    passed_on = replace(admission, facts={**admission.facts, "peer": "1"})
    assert found(places, "theirs", passed_on).upstream is places.own
    assert found(places, "far", passed_on).upstream is not places.own


@pytest.mark.parametrize("own", [frozenset()])
def test_without_a_list_all_that_have_no_url_are_own(places: Places, admission: Admission) -> None:
    places.learn(CATALOGUE)
    assert found(places, "theirs", admission) == Link(
        places.own, found(places, "ours", admission).format, "theirs/small", "", is_peer=False
    )
    assert found(places, "far", admission).upstream is not places.own


def test_a_provider_is_asked_in_its_format_with_its_key(places: Places, admission: Admission) -> None:
    places.learn(CATALOGUE)
    link = found(places, "far", admission)
    assert isinstance(link.format, AnthropicFormat)
    assert (link.model, link.secret, link.is_peer) == ("claude-9", "anthropic", False)


def test_a_format_of_a_newer_catalogue_is_not_guessed(places: Places, admission: Admission) -> None:
    places.learn({"far": replace(FAR, format="carrier-pigeon")})
    assert places.link("far", admission) is None


def test_places_follow_the_catalogue(places: Places, admission: Admission) -> None:
    before = places.place("far")
    assert before.bulkhead.most == 10  # nothing is known
    places.learn(CATALOGUE)
    assert places.place("far") is before
    assert before.bulkhead.most == 3
    places.learn({**CATALOGUE, "far": replace(FAR, max_requests=5)})
    assert places.place("far") is before
    assert before.bulkhead.most == 5
    places.learn({**CATALOGUE, "far": replace(FAR, url="https://elsewhere.test")})
    assert places.place("far") is not before  # what was seen was seen elsewhere
    places.learn({"ours": OURS})
    assert "far" not in places.places()


def test_only_servers_that_are_ours_are_asked_for_their_load(places: Places, admission: Admission) -> None:
    near = Deployment("near", "small", "http://chat-a:8080", url="http://vllm:8000")
    places.learn({**CATALOGUE, "near": near})
    assert places.telling("ours") is places.own
    assert places.telling("near") is found(places, "near", admission).upstream
    assert places.telling("theirs") is None
    assert places.telling("far") is None
    assert places.telling("gone") is None


def test_the_time_to_the_first_byte_rises_at_once_and_falls_slowly(places: Places) -> None:
    place = places.place("ours")
    for seconds in (0.1, 2.0, 1.0):
        place.observe_first_byte(seconds)
    assert place.first_byte_seconds == pytest.approx(1.9)
