"""Decisions that are signed for the service that takes the request."""

from dataclasses import replace

import pytest

from dozen_chassis import admission
from dozen_chassis.errors import InvalidRequest, NotAdmitted
from dozen_chassis.signing import derive_key
from dozen_gateway.domain.decision import Facts
from dozen_gateway.domain.rejections import Rejection
from dozen_gateway.domain.route_table import ROUTES
from dozen_gateway.domain.state import State
from dozen_gateway.service.decisions import DecisionService, Passage

NOW = 1_000_000.0
MASTER_KEY = b"master"
ADDRESSES = {route.service: f"http://{route.service}" for route in ROUTES}


@pytest.fixture
def decisions(state: State) -> DecisionService:
    return DecisionService(state, ADDRESSES, MASTER_KEY, clock=lambda: NOW)


@pytest.fixture
def facts(api_key: str) -> Facts:
    return Facts("POST", "/v1/chat/completions", model="smol", api_key=api_key)


def admitted(decision: Passage | Rejection) -> Passage:
    assert isinstance(decision, Passage)
    return decision


def test_the_receiving_service_verifies_what_was_signed_and_no_other_does(
    decisions: DecisionService, facts: Facts
) -> None:
    passage = admitted(decisions.decide(facts, "req_1"))
    assert (passage.service, passage.address) == ("chat", "http://upstream")
    operation, chat = "POST /v1/chat/completions", derive_key(MASTER_KEY, "admission:chat")
    verified = admission.verify(passage.headers, operation, chat, NOW + 59)
    assert (verified.account, verified.key, verified.request_id) == ("acme", "key1", "req_1")
    assert verified.facts == {"model": "smol", "deployments": "smol-chat", "price": "price-smol"}
    with pytest.raises(NotAdmitted):
        admission.verify(passage.headers, operation, derive_key(MASTER_KEY, "admission:jobs"), NOW)
    with pytest.raises(NotAdmitted, match="expired"):
        admission.verify(passage.headers, operation, chat, NOW + 61)


def test_a_free_request_goes_to_the_address_of_its_service_without_facts(
    decisions: DecisionService, facts: Facts
) -> None:
    passage = admitted(decisions.decide(replace(facts, method="GET", path="/v1/jobs/job_1"), "req_1"))
    assert passage.address == "http://jobs"
    assert passage.admission.operation == "GET /v1/jobs/job_1"
    assert not passage.admission.facts


def test_an_admission_lives_for_a_day_at_most(decisions: DecisionService, facts: Facts) -> None:
    passage = admitted(decisions.decide(facts, "req_1", lifetime=10 * 24 * 3600))
    expires_at, _, _ = passage.headers["x-dozen-admission"].partition(".")
    assert int(expires_at) == NOW + 24 * 3600


@pytest.mark.parametrize(("request_id", "lifetime"), [("a b", 60), ("", 60), ("x" * 129, 60), ("req_1", 0)])
def test_ids_and_lifetimes_that_cannot_be_signed_are_refused(
    decisions: DecisionService, facts: Facts, request_id: str, lifetime: float
) -> None:
    with pytest.raises(InvalidRequest):
        decisions.decide(facts, request_id, lifetime)


def test_the_first_half_of_a_decision_needs_no_model(decisions: DecisionService, facts: Facts) -> None:
    assert not isinstance(decisions.identify(replace(facts, model="")), Rejection)
    assert isinstance(decisions.identify(replace(facts, api_key="")), Rejection)


def test_every_service_needs_an_address(state: State) -> None:
    with pytest.raises(ValueError, match="storage"):
        DecisionService(state, {"chat": "http://chat"}, MASTER_KEY)
