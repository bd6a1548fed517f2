"""Rules of the catalogue and of health."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from dozen_models.domain.catalogue import (
    Changes,
    Deployment,
    Model,
    ModelCard,
    Offer,
    Price,
    compare,
    find_circle,
    is_in_scope,
    is_model_id,
)
from dozen_models.domain.health import Answer, Health, HealthState, Outcome, judge
from dozen_models.domain.targets import Target, targets

NOW = datetime(2025, 1, 1, tzinfo=UTC)
DEPLOYMENTS = tuple(
    Deployment(id, "chat", "http://chat:8080", "http://sidecar:8081/health", 1, 100) for id in ("a", "b")
)
CARD = ModelCard("m", "acme", ("chat",), 2048, DEPLOYMENTS)
MODEL = Model(CARD, NOW, Price("price_1", {"input_tokens": 5}, NOW))


def model(*healths: Health) -> Model:
    states = {one.id: HealthState(health) for one, health in zip(DEPLOYMENTS, healths, strict=True)}
    return replace(MODEL, states=states)


def test_an_equal_offer_changes_nothing() -> None:
    assert compare([MODEL], [Offer(CARD, {"input_tokens": 5})]) == Changes([], [], [])


def test_a_new_model_is_registered_and_priced() -> None:
    offer = Offer(CARD, {"input_tokens": 5})
    assert compare([], [offer]) == Changes([], [CARD], [offer])


def test_a_changed_card_and_a_changed_price_are_told_apart() -> None:
    longer = replace(CARD, context_length=4096)
    assert compare([MODEL], [Offer(longer, {"input_tokens": 5})]) == Changes([], [longer], [])
    dearer = Offer(CARD, {"input_tokens": 6})
    assert compare([MODEL], [dearer]) == Changes([], [], [dearer])


def test_what_is_not_offered_is_retired() -> None:
    assert compare([MODEL], []) == Changes([MODEL], [], [])


def test_deployments_that_share_a_health_url_are_one_target() -> None:
    assert targets([model(Health.HEALTHY, Health.UNKNOWN)]) == {
        "http://sidecar:8081/health": [
            Target("a", "m", Health.HEALTHY),
            Target("b", "m", Health.UNKNOWN),
        ]
    }


@pytest.mark.parametrize(
    ("outcome", "failures", "health"),
    [
        (Outcome.OK, 0, Health.HEALTHY),
        (Outcome.REFUSED, 1, Health.UNHEALTHY),
        (Outcome.TIMEOUT, 1, None),
        (Outcome.TIMEOUT, 2, Health.UNHEALTHY),
        (Outcome.STATUS, 1, None),
        (Outcome.BROKEN, 2, Health.UNHEALTHY),
    ],
)
def test_one_failure_is_not_enough_unless_the_connection_is_refused(
    outcome: Outcome, failures: int, health: Health | None
) -> None:
    assert judge(Answer(outcome, ""), failures) is health


@pytest.mark.parametrize(
    ("healths", "expected"),
    [
        ([Health.HEALTHY, Health.UNHEALTHY], Health.HEALTHY),
        ([Health.UNHEALTHY, Health.UNHEALTHY], Health.UNHEALTHY),
        ([Health.UNHEALTHY, Health.UNKNOWN], Health.UNKNOWN),
    ],
)
def test_a_model_is_healthy_where_one_deployment_is(healths: list[Health], expected: Health) -> None:
    assert model(*healths).health is expected


@pytest.mark.parametrize(("id", "possible"), [
    ("whisper-tiny.en", True), ("acme/llama-3-8b", True), ("acme/llama:free@1", True), ("m" * 128, True),
    ("", False), ("m" * 129, False), ("a//b", False), ("/a", False), ("a/", False), ("../a", False),
    ("a\x00", False), ("a\n", False), ("a,b", False),
])  # fmt: skip
def test_the_form_of_model_ids(id: str, possible: bool) -> None:
    assert is_model_id(id) is possible


@pytest.mark.parametrize(("scope", "allowed"), [
    (None, True), (frozenset({"acme/llama"}), True), (frozenset({"acme"}), False), (frozenset(), False),
    (frozenset({"-"}), False),
])  # fmt: skip
def test_a_key_may_use_what_is_in_its_scope(scope: frozenset[str] | None, allowed: bool) -> None:
    assert is_in_scope("acme/llama", scope) is allowed


@pytest.mark.parametrize(
    ("fallbacks", "circle"),
    [
        ({}, []),
        ({"a": ["b", "c"], "b": ["c"], "c": []}, []),
        ({"a": ["b"], "b": ["a"]}, ["a", "b", "a"]),
        ({"a": ["b"], "b": ["c", "d"], "c": [], "d": ["b"]}, ["b", "d", "b"]),
    ],
)
def test_a_circle_of_fallbacks_is_found(fallbacks: dict[str, list[str]], circle: list[str]) -> None:
    assert find_circle(fallbacks) == circle
