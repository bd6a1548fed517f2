"""Models that stand in for others, what is held for them, and what the service is told."""

from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from dozen_gateway.domain.bounds import Asked
from dozen_gateway.domain.decision import Admitted, Facts, decide
from dozen_gateway.domain.keys import ApiKey, KeyParts, hash_secret, write_key
from dozen_gateway.domain.leases import Lease
from dozen_gateway.domain.loads import Observation
from dozen_gateway.domain.offers import MOST_FALLBACKS
from dozen_gateway.domain.rejections import Rejection
from dozen_gateway.domain.routing import MOST_TRIED
from dozen_gateway.domain.state import Account, Deployment, Model, Price, Snapshot, State

NOW, MONOTONIC = 1_000_000.0, 5.0
KEY = ApiKey("key1", "acme", "test", hash_secret("5ecret"), NOW)
CHAT = Facts(
    "POST",
    "/v1/chat/completions",
    model="smol",
    asked=Asked(100, max_tokens=50),
    api_key=write_key(KeyParts("acme", "key1", "5ecret")),
)


def model(name: str, *fallbacks: str, places: int = 1, context: int = 2048, does: str = "chat") -> Model:
    deployments = tuple(
        Deployment(f"{name}-{number}", "chat", f"http://{name}", number, 1) for number in range(places)
    )
    return Model(name, frozenset({does}), context, deployments, fallbacks)


def make(*models: Model, key: ApiKey = KEY, prices: dict[str, dict[str, int]] | None = None) -> State:
    state = State()
    price = {"input_tokens": 1, "output_tokens": 10}
    state.learn(
        Snapshot(
            whole=True,
            keys={key.id: key},
            accounts={"acme": Account(10**9, 1)},
            models={one.id: one for one in models},
            prices={
                one.id: (Price(f"price-{one.id}", (prices or {}).get(one.id, price), 0),) for one in models
            },
        )
    )
    lease = state.purse("acme", "").lease = Lease("lease_1")
    lease.granted, lease.valid_until = 10**9, float("inf")
    return state


def decided(state: State, facts: Facts = CHAT) -> Admitted:
    decision = decide(facts, state, NOW, MONOTONIC, Random(1))
    assert isinstance(decision, Admitted), decision
    return decision


def fallbacks(state: State, facts: Facts = CHAT) -> list[str]:
    text = decided(state, facts).facts.get("fallbacks", "")
    return [entry.split(" ")[1] for entry in text.split(",")] if text else []


def test_the_service_is_told_of_the_model_and_of_those_that_stand_in_for_it() -> None:
    state = make(model("smol", "large", places=2), model("large", places=2))
    assert decided(state).facts == {
        "model": "smol",
        "price": "price-smol",
        "deployments": "smol-0,smol-1",
        "fallbacks": "large-0 large price-large,large-1 large price-large",
        "max-tokens": "50",
        "reservation": "lease_1",
    }


def test_fallbacks_of_fallbacks_follow_each_once() -> None:
    state = make(
        model("smol", "b", "c"),
        model("b", "smol", "d", "b"),
        model("c", "d", "e"),
        model("d", "c"),
        model("e"),
    )
    assert fallbacks(state) == ["b", "c", "d", "e"]


def test_there_are_so_many_fallbacks_at_most() -> None:
    names = [f"m{number}" for number in range(10)]
    state = make(model("smol", *names), *(model(name, places=4) for name in names))
    entries = decided(state).facts["fallbacks"].split(",")
    assert len(entries) == MOST_TRIED
    one_each = make(model("smol", *names), *map(model, names))
    assert fallbacks(one_each) == names[:MOST_FALLBACKS]


def test_only_what_the_key_may_use_and_what_does_the_same_stands_in() -> None:
    models = (
        model("smol", "gone", "other", "embeds", "free", "sick"),
        model("other"), model("embeds", does="embeddings"), model("free"), model("sick"),
    )  # fmt: skip
    state = make(*models, key=replace(KEY, models=frozenset({"smol", "embeds", "free", "sick"})))
    state.prices["free"] = ()
    state.usable["sick-0"] = False
    assert fallbacks(state) == []
    state = make(*models)
    assert fallbacks(state) == ["other", "free", "sick"]


def test_one_with_a_smaller_context_takes_what_surely_fits() -> None:
    state = make(model("smol", "small"), model("small", context=512))
    assert fallbacks(state) == ["small"]
    assert fallbacks(state, structs.replace(CHAT, asked=Asked(100, max_tokens=512 - 100 - 256))) == ["small"]
    assert fallbacks(state, structs.replace(CHAT, asked=Asked(101, max_tokens=512 - 100 - 256))) == []
    assert fallbacks(state, structs.replace(CHAT, asked=Asked(100))) == []
    assert fallbacks(state, structs.replace(CHAT, asked=Asked(100, max_tokens=5, media_parts=1))) == []
    assert fallbacks(make(model("smol", "endless"), model("endless", context=0)), CHAT) == ["endless"]
    assert fallbacks(make(model("smol", "small", context=0), model("small"))) == ["small"]
    assert (
        fallbacks(
            make(model("smol", "small", context=0), model("small")), structs.replace(CHAT, asked=Asked(9))
        )
        == []
    )


def test_where_the_model_itself_is_nowhere_the_first_fallback_is_asked() -> None:
    state = make(model("smol", "large", places=2), model("large"))
    state.usable = {"smol-0": False, "smol-1": False}
    decision = decided(state)
    assert decision.deployments[0].address == "http://large"
    assert (decision.model, decision.facts["model"]) == ("smol", "smol")
    assert "deployments" not in decision.facts
    state.usable["large-0"] = False
    rejection = decide(CHAT, state, NOW, MONOTONIC, Random(1))
    assert isinstance(rejection, Rejection)
    assert rejection.code == "model_unavailable"


def test_a_model_that_all_have_given_up_is_not_asked_for() -> None:
    state = make(model("smol", "large"), model("large"))
    state.loads.observe("chat-1", {"smol-0": Observation(is_open=True)}, MONOTONIC)
    assert decided(state).deployments[0].id == "large-0"
    state.models["smol"] = replace(state.models["smol"], fallbacks=())
    assert isinstance(decide(CHAT, state, NOW, MONOTONIC, Random(1)), Rejection)


@pytest.mark.parametrize(
    ("price", "held"),
    [
        ({"input_tokens": 1, "output_tokens": 1}, 356 + 500),
        ({"input_tokens": 1, "output_tokens": 20}, 356 + 1000),
        ({"input_tokens": 5, "output_tokens": 1}, 5 * 356 + 500),
    ],
)
def test_what_is_held_pays_for_the_dearest(price: dict[str, int], held: int) -> None:
    state = make(model("smol", "large"), model("large"), prices={"large": price})
    assert decided(state).promise.nano_credits == held


@given(
    st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20), st.sampled_from([0, 512, 4096])), max_size=4),
    st.integers(0, 3000),
    st.none() | st.integers(1, 3000),
    st.integers(1, 3),
)
@settings(max_examples=200, deadline=None)
def test_no_answer_costs_more_than_is_held(
    models: list[tuple[int, int, int]], size: int, limit: int | None, choices: int
) -> None:
    names = [f"m{number}" for number in range(len(models))]
    state = make(
        model("smol", *names),
        *(model(name, context=context) for name, (_, _, context) in zip(names, models, strict=True)),
        prices={
            name: {"input_tokens": input, "output_tokens": output}
            for name, (input, output, _) in zip(names, models, strict=True)
        },
    )
    facts = structs.replace(CHAT, asked=Asked(size, choices, limit))
    decision = decided(state, facts)
    most = int(decision.facts["max-tokens"])
    for name in ["smol", *fallbacks(state, facts)]:
        price = state.prices[name][0].nano_credits
        context = state.models[name].context_length
        prompt = min(size + 256, context) if context else size + 256
        cost = prompt * price["input_tokens"] + choices * most * price["output_tokens"]
        assert cost <= decision.promise.nano_credits


def test_policies_of_the_model_are_told() -> None:
    state = make(model("smol", "large"), model("large"))
    assert {"cache", "filter"}.isdisjoint(decided(state).facts)
    state.models["smol"] = replace(state.models["smol"], cache_seconds=60)
    assert decided(state).facts["cache"] == "60"
    state.models["large"] = replace(state.models["large"], content_filter=True)
    assert decided(state).facts["filter"] == "on"


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/a/smol"])
def test_the_catalogue_is_told_which_models_a_key_may_use(path: str) -> None:
    ask = structs.replace(CHAT, method="GET", path=path)
    assert decided(make(), ask).facts == {}
    some = make(key=replace(KEY, models=frozenset({"smol", "a/large", "no model, never", "é"})))
    assert decided(some, ask).facts == {"models": "a/large,smol"}
    assert decided(some, structs.replace(ask, path="/v1/files")).facts == {}
    assert decided(make(key=replace(KEY, models=frozenset({"é"}))), ask).facts == {"models": "-"}
