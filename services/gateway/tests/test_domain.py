"""The route table, keys, and the rules of a decision in their order."""

import itertools
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from random import Random

import pytest
import yaml
from msgspec import structs

from dozen_gateway.domain.decision import Admitted, Facts, decide
from dozen_gateway.domain.keys import KeyParts, mask_key, read_key, write_key
from dozen_gateway.domain.promises import Shortage
from dozen_gateway.domain.rejections import Rejection
from dozen_gateway.domain.route_table import FREE, ROUTES, Route, find_route
from dozen_gateway.domain.state import Account, Deployment, Price, Snapshot, State
from dozen_local.catalogue import SOURCE

NOW = 1_000_000.0
MONOTONIC = 5.0
UNITS = {
    "input_tokens", "cached_input_tokens", "output_tokens", "cache_hits", "images", "audio_milliseconds",
    "characters",
}  # fmt: skip
INFERENCE_SERVICES = {"chat", "completion", "embeddings", "images", "audio"}
STORED = ("/v1/responses/", "/v1/conversations")
"""What is kept of requests that were charged."""
NOT_CHARGED = {"/v1/moderations"}


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.pattern}")
def test_every_route_that_costs_money_has_a_price_class(route: Route) -> None:
    runs_nothing = route.pattern.startswith(STORED) or route.pattern in NOT_CHARGED
    costs = route.service in INFERENCE_SERVICES and not runs_nothing
    assert (route.price_class != FREE) is costs
    assert (route.capability is not None) is costs
    assert route.price_class <= UNITS


def test_every_model_of_the_catalogue_is_charged_in_the_units_of_its_price() -> None:
    for model in yaml.safe_load(SOURCE.read_text())["models"]:
        for capability in model["capabilities"]:
            routes = [route for route in ROUTES if route.capability == capability]
            assert routes
            for route in routes:
                assert set(model["prices"]) <= route.price_class
                assert route.service in {deployment["service"] for deployment in model["deployments"]}


@pytest.mark.parametrize(
    ("method", "path", "pattern"),
    [
        ("POST", "/v1/chat/completions", "/v1/chat/completions"),
        ("GET", "/v1/models/smol", "/v1/models/{model}"),
        ("GET", "/v1/models/acme/llama-3:8b@v1", "/v1/models/{model}"),
        ("GET", "/v1/files", "/v1/files"),
        ("DELETE", "/v1/files/file-1", "/v1/files/{id}"),
        ("GET", "/v1/files/file-1/content", "/v1/files/{id}/content"),
        ("POST", "/v1/jobs/job_1/cancel", "/v1/jobs/{id}/cancel"),
        ("DELETE", "/v1/keys/key_1", "/v1/keys/{id}"),
        ("POST", "/v1/responses", "/v1/responses"),
        ("POST", "/v1/responses/resp_1/cancel", "/v1/responses/{id}/cancel"),
        ("GET", "/v1/conversations/conv_1/items/msg_1", "/v1/conversations/{id}/items/{item_id}"),
    ],
)
def test_a_path_finds_its_route(method: str, path: str, pattern: str) -> None:
    route = find_route(method, path)
    assert isinstance(route, Route)
    assert route.pattern == pattern


@pytest.mark.parametrize(
    "path",
    [
        "/v1/nothing", "/v1/", "/v1/chat/completions/", "/v1/files/a/b", "/v1/files/", "/v1/models/",
        "/v1/models/../keys", "/v1/models//x", "/v1/files/a b", "/v1/files/a\nb", "/v1/files/é",
        "/v1/models?x=1", "/v1/conversations/c/items/a/b", "/v1/messages/msg_1",
    ],
)  # fmt: skip
def test_an_unknown_path_is_not_found(path: str) -> None:
    found = find_route("GET", path)
    assert isinstance(found, Rejection)
    assert (found.http_status, found.code) == (404, "unknown_url")


def test_another_method_is_told_which_are_allowed() -> None:
    found = find_route("PATCH", "/v1/jobs")
    assert isinstance(found, Rejection)
    assert (found.http_status, found.headers["allow"]) == (405, "GET, POST")


def test_a_key_is_read_as_it_was_written() -> None:
    parts = KeyParts("acme", "key_1", "abcDEF123")
    assert read_key(write_key(parts)) == parts


@pytest.mark.parametrize(
    "text", ["", "sk-abc", "dz-acme-key1", "dz-ACME-key1-x", "dz-acme-key1-a-b", "dz-acme--x"]
)
def test_what_is_no_key_is_not_read(text: str) -> None:
    assert read_key(text) is None


def test_a_masked_key_shows_its_ends_only() -> None:
    assert mask_key("dz-acme-key1-0123456789abcdef") == "dz-********cdef"
    assert mask_key("short-secret") == "************"


@pytest.fixture
def facts(api_key: str) -> Facts:
    return Facts("POST", "/v1/chat/completions", model="smol", api_key=api_key)


def decided(facts: Facts, state: State) -> Admitted | Rejection | Shortage:
    return decide(facts, state, NOW, MONOTONIC, Random(1))


def rejected(facts: Facts, state: State) -> Rejection:
    decision = decided(facts, state)
    assert isinstance(decision, Rejection)
    return decision


def test_a_request_in_order_is_admitted_with_its_model_price_and_deployment(
    facts: Facts, state: State
) -> None:
    decision = decided(facts, state)
    assert isinstance(decision, Admitted)
    assert (decision.service, decision.account, decision.key) == ("chat", "acme", "key1")
    assert (decision.model, decision.price) == ("smol", "price-smol")
    assert [deployment.id for deployment in decision.deployments] == ["smol-chat"]


# Each spoils one thing; they stand in the order in which a decision asks for them.
def _no_such_url(facts: Facts, state: State) -> Facts:
    return structs.replace(facts, path="/v1/nothing")


def _not_loaded(facts: Facts, state: State) -> Facts:
    state.loaded = False
    return facts


def _too_old(facts: Facts, state: State) -> Facts:
    state.trusted_until = NOW - 1
    return facts


def _no_key(facts: Facts, state: State) -> Facts:
    return structs.replace(facts, api_key="")


def _key_for_files(facts: Facts, state: State) -> Facts:
    state.keys["key1"] = replace(state.keys["key1"], endpoints=frozenset({"/v1/files"}))
    return facts


def _key_for_another_model(facts: Facts, state: State) -> Facts:
    state.keys["key1"] = replace(state.keys["key1"], models=frozenset({"large"}))
    return facts


def _no_model(facts: Facts, state: State) -> Facts:
    return structs.replace(facts, model="")


def _unknown_model(facts: Facts, state: State) -> Facts:
    state.models.clear()
    return facts


def _wrong_endpoint(facts: Facts, state: State) -> Facts:
    state.models["smol"] = replace(state.models["smol"], capabilities=frozenset({"embeddings"}))
    return facts


def _no_price(facts: Facts, state: State) -> Facts:
    state.prices.clear()
    return facts


def _no_credits(facts: Facts, state: State) -> Facts:
    state.accounts["acme"] = Account(0, 2)
    purse = state.purse("acme", "")
    purse.lease, purse.refused_until = None, MONOTONIC + 1
    return facts


def _unhealthy(facts: Facts, state: State) -> Facts:
    state.usable["smol-chat"] = False
    return facts


Spoil = Callable[[Facts, State], Facts]
RULES: dict[Spoil, tuple[int, str, str]] = {
    _no_such_url: (404, "unknown_url", "Invalid URL (POST /v1/nothing)"),
    _not_loaded: (503, "not_ready", "is starting"),
    _too_old: (503, "state_too_old", "cannot reach its database"),
    _no_key: (401, "invalid_api_key", "You didn't provide an API key"),
    _key_for_files: (403, "insufficient_permissions", "this key may not POST /v1/chat/completions"),
    _no_model: (400, "missing_required_parameter", "You must provide a model parameter"),
    _unknown_model: (404, "model_not_found", "model `smol` does not exist or you do not have access to it."),
    _key_for_another_model: (403, "model_not_found", "does not have access to the model `smol`"),
    _wrong_endpoint: (404, "model_not_found", "serve POST /v1/chat/completions; it serves POST /v1/embed"),
    _no_price: (503, "model_unavailable", "has no price"),
    _unhealthy: (503, "model_unavailable", "is not available at the moment"),
    _no_credits: (429, "insufficient_quota", "no credits left"),
}  # fmt: skip


@pytest.mark.parametrize("spoil", RULES)
def test_each_rule_rejects(spoil: Spoil, facts: Facts, state: State) -> None:
    rejection = rejected(spoil(facts, state), state)
    status, code, message = RULES[spoil]
    assert (rejection.http_status, rejection.code) == (status, code)
    assert message in rejection.message


@pytest.mark.parametrize(("first", "second"), list(itertools.combinations(RULES, 2)))
def test_of_two_reasons_the_earlier_is_given(first: Spoil, second: Spoil, facts: Facts, state: State) -> None:
    spoilt = first(second(facts, state), state)
    assert RULES[first][2] in rejected(spoilt, state).message


def test_clients_are_told_whether_to_try_again(facts: Facts, state: State) -> None:
    _unhealthy(facts, state)
    headers = rejected(facts, state).headers
    assert headers["x-should-retry"] == "true"
    assert 2 <= int(headers["retry-after-ms"]) / 1000 <= int(headers["retry-after"]) <= 8
    state.usable.clear()
    _no_credits(facts, state)
    rejection = rejected(facts, state)
    assert rejection.type == "insufficient_quota"
    assert rejection.headers == {"x-should-retry": "false"}


@pytest.mark.parametrize(
    "api_key",
    [
        "sk-something", "dz-acme-key1-wrong", "dz-other-key1-5ecret", "dz-acme-key2-5ecret",
        "dz-acme-key1-5ecretX",
    ],
)  # fmt: skip
def test_a_wrong_key_is_refused_and_not_shown(api_key: str, facts: Facts, state: State) -> None:
    rejection = rejected(structs.replace(facts, api_key=api_key), state)
    assert (rejection.http_status, rejection.code) == (401, "invalid_api_key")
    assert api_key not in rejection.message


def test_facts_do_not_show_the_key(facts: Facts) -> None:
    assert facts.api_key not in repr(facts)


@pytest.mark.parametrize("by_id", [True, False])
def test_a_revoked_key_is_refused(by_id: bool, facts: Facts, state: State) -> None:
    facts = structs.replace(facts, api_key="", key_id="key1") if by_id else facts
    assert isinstance(decided(facts, state), Admitted)
    state.keys["key1"] = replace(state.keys["key1"], revoked_at=NOW)
    assert rejected(facts, state).code == "invalid_api_key"


def test_an_unknown_key_id_is_refused(facts: Facts, state: State) -> None:
    assert rejected(structs.replace(facts, key_id="key2"), state).code == "invalid_api_key"


def test_a_free_route_needs_neither_model_nor_credits(facts: Facts, state: State) -> None:
    state.accounts.clear()
    assert decided(structs.replace(facts, method="GET", path="/v1/files/file-1"), state) == Admitted(
        "storage", "acme", "key1"
    )


def test_credits_are_asked_for_an_account_that_is_not_known(facts: Facts, state: State) -> None:
    state.accounts.clear()
    state.purses.clear()
    shortage = decided(facts, state)
    assert isinstance(shortage, Shortage)
    assert (shortage.account, shortage.purse_key) == ("acme", "")
    assert shortage.missing_nano_credits == shortage.nano_credits > 0
    state.purse("acme", "").refused_until = MONOTONIC + 1
    assert rejected(facts, state).code == "insufficient_quota"


def test_the_price_in_force_is_the_latest_that_has_begun(facts: Facts, state: State) -> None:
    begun, *_ = state.prices["smol"]
    latest, future = Price("price-2", {}, NOW), Price("price-3", {}, NOW + 1)
    state.prices["smol"] = (begun, latest, future)
    decision = decided(facts, state)
    assert isinstance(decision, Admitted)
    assert decision.price == "price-2"
    state.prices["smol"] = (future,)
    assert rejected(facts, state).http_status == 503


def _serve_by(state: State, *deployments: Deployment) -> None:
    state.models["smol"] = replace(state.models["smol"], deployments=deployments)


def _order(facts: Facts, state: State, draw: Random) -> list[str]:
    decision = decide(facts, state, NOW, MONOTONIC, draw)
    assert isinstance(decision, Admitted)
    return [deployment.id for deployment in decision.deployments]


def test_deployments_come_by_priority_and_only_those_of_the_service_that_are_usable(
    facts: Facts, state: State
) -> None:
    _serve_by(
        state,
        Deployment("third", "chat", "http://3", 3, 1),
        Deployment("sick", "chat", "http://s", 1, 100),
        Deployment("second", "chat", "http://2", 2, 1),
        Deployment("other", "completion", "http://o", 1, 100),
        Deployment("first", "chat", "http://1", 1, 1),
    )
    state.usable = {"sick": False, "first": True}
    assert _order(facts, state, Random(1)) == ["first", "second", "third"]


def test_equals_share_the_traffic_by_weight_and_the_rest_are_fallbacks(facts: Facts, state: State) -> None:
    _serve_by(
        state,
        Deployment("small", "chat", "http://1", 1, 100),
        Deployment("large", "chat", "http://2", 1, 300),
        Deployment("none", "chat", "http://3", 1, 0),
    )
    draw = Random(1)
    orders = [_order(facts, state, draw) for _ in range(2000)]
    primaries = Counter(order[0] for order in orders)
    assert 1400 < primaries["large"] < 1600
    assert {order[-1] for order in orders} == {"none"}
    assert all(len(order) == 3 for order in orders)


def test_a_whole_snapshot_replaces_and_a_partial_one_adds(state: State) -> None:
    state.learn(Snapshot(accounts={"other": Account(5, 1)}))
    assert set(state.accounts) == {"acme", "other"}
    state.learn(Snapshot(whole=True))
    assert not state.keys
    assert not state.models


def test_of_two_balances_the_newer_is_kept(state: State) -> None:
    state.learn(Snapshot(accounts={"acme": Account(5, 7)}))
    state.learn(Snapshot(whole=True, accounts={"acme": Account(9, 6)}))
    assert state.accounts["acme"] == Account(5, 7)


def test_a_partial_snapshot_does_not_make_the_state_loaded() -> None:
    state = State()
    state.learn(Snapshot(accounts={"other": Account(5, 1)}))
    assert not state.loaded
