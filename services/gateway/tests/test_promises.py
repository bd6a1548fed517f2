"""What an admission promises: what is held, what the service has to keep to, and what is short."""

from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from dozen_gateway.domain.bounds import LEAST_ANSWER_TOKENS, Asked
from dozen_gateway.domain.decision import Admitted, Facts, decide
from dozen_gateway.domain.keys import ApiKey, Budget, BudgetPeriod, KeyParts, hash_secret, write_key
from dozen_gateway.domain.leases import Lease, Purse
from dozen_gateway.domain.limits import RateLimits
from dozen_gateway.domain.promises import Promise, Shortage
from dozen_gateway.domain.rejections import Rejection
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
PRICES = {
    "smol": {"input_tokens": 1, "output_tokens": 10},
    "minilm": {"input_tokens": 2},
    "free": {"input_tokens": 0, "output_tokens": 0},
    "reader": {"images": 1000},
    "whisper": {"audio_milliseconds": 3},
}
SERVICES = {
    "smol": ("chat", "chat"),
    "minilm": ("embeddings", "embeddings"),
    "free": ("chat", "chat"),
    "reader": ("images.analyses", "images"),
    "whisper": ("audio.transcriptions", "audio"),
}


def make(*, free: int = 0, available: int = 10**9, key: ApiKey = KEY) -> State:
    """Make a state with a lease of which so much is free."""
    state = State()
    models = {
        name: Model(name, frozenset({capability}), 2048, (Deployment(name, service, "http://x", 1, 1),))
        for name, (capability, service) in SERVICES.items()
    }
    state.learn(
        Snapshot(
            whole=True,
            keys={key.id: key},
            accounts={"acme": Account(available, 1)},
            models=models,
            prices={name: (Price(f"price-{name}", price, 0),) for name, price in PRICES.items()},
        )
    )
    if free:
        lend(state.purse("acme", key.id if key.budget else ""), free)
    return state


def lend(purse: Purse, amount: int) -> Lease:
    lease = purse.lease = Lease("lease_1")
    lease.granted, lease.valid_until = amount, MONOTONIC + 60
    return lease


def decided(facts: Facts, state: State) -> Admitted | Rejection | Shortage:
    return decide(facts, state, NOW, MONOTONIC, Random(1))


def promised(facts: Facts, state: State) -> Promise:
    decision = decided(facts, state)
    assert isinstance(decision, Admitted)
    return decision.promise


def short(facts: Facts, state: State) -> Shortage:
    decision = decided(facts, state)
    assert isinstance(decision, Shortage)
    return decision


HELD = (100 + 256) * 1 + 50 * 10


def test_the_worst_case_is_held_and_the_service_told_to_keep_to_it() -> None:
    promise = promised(CHAT, make(free=10_000))
    assert promise.nano_credits == HELD
    assert promise.facts == {"max-tokens": "50"}
    limited = make(free=10_000, key=replace(KEY, limits=RateLimits(tokens_per_minute=1000)))
    (counted,) = short(CHAT, limited).permits
    assert counted.amount == 100 + 256 + 50


@pytest.mark.parametrize(
    ("path", "model", "asked", "held", "facts"),
    [
        ("/v1/embeddings", "minilm", Asked(40), 80, {"max-units": "40"}),
        ("/v1/images/analyses", "reader", Asked(5000), 1000, {"max-units": "1"}),
        ("/v1/audio/transcriptions", "whisper", Asked(500), 3000, {"max-units": "1000"}),
    ],
)
def test_everything_is_held_in_its_own_units(
    path: str, model: str, asked: Asked, held: int, facts: dict[str, str]
) -> None:
    promise = promised(structs.replace(CHAT, path=path, model=model, asked=asked), make(free=10_000))
    assert (promise.nano_credits, promise.facts) == (held, facts)


def test_what_costs_nothing_needs_no_lease() -> None:
    promise = promised(structs.replace(CHAT, model="free"), make(available=0))
    assert (promise.purse, promise.nano_credits) == (None, 0)


def test_what_is_not_free_is_short() -> None:
    assert short(CHAT, make(free=HELD - 1)) == Shortage("acme", "", HELD, missing_nano_credits=1)
    assert promised(CHAT, make(free=HELD)).nano_credits == HELD


@pytest.mark.parametrize("spoil", ["expired", "returned", "held"])
def test_only_what_is_free_in_a_valid_lease_counts(spoil: str) -> None:
    state = make(free=HELD)
    lease = state.purse("acme", "").lease
    assert lease is not None
    match spoil:
        case "expired":
            lease.valid_until = MONOTONIC
        case "returned":
            state.purse("acme", "").lease = None
        case _:
            lease.held = 1
    assert short(CHAT, state).missing_nano_credits > 0


def test_an_answer_is_cut_to_what_the_account_can_pay() -> None:
    promise = promised(CHAT, make(free=356 + 305, available=0))
    assert (promise.nano_credits, promise.facts) == (356 + 300, {"max-tokens": "30"})


def test_an_answer_without_a_limit_leaves_others_their_share() -> None:
    unlimited = structs.replace(CHAT, asked=Asked(100))
    # The whole context: the server sees to that, and would refuse it as a limit beside any prompt.
    assert promised(unlimited, make(free=10**6)).facts == {"max-tokens": "2048", "uncapped": "1"}
    assert promised(unlimited, make(free=80_000, available=0)).facts == {
        "max-tokens": str((10_000 - 356) // 10)
    }
    assert promised(unlimited, make(free=10_000, available=0)).facts == {
        "max-tokens": str(LEAST_ANSWER_TOKENS)
    }


def test_a_limit_of_ours_fits_into_the_context_beside_the_prompt() -> None:
    unlimited = structs.replace(CHAT, asked=Asked(1000))
    promise = promised(unlimited, make(free=150_000, available=0))
    assert promise.facts == {"max-tokens": str(2048 - 1000 - 256)}
    assert promise.nano_credits == 1256 + 792 * 10


def test_a_balance_that_does_not_suffice_is_asked_for_once_a_second_at_most() -> None:
    state = make(available=3)
    assert short(CHAT, state).nano_credits == 356 + 10
    purse = state.purse("acme", "")
    purse.refused_until = MONOTONIC + 0.5
    rejection = decided(CHAT, state)
    assert isinstance(rejection, Rejection)
    assert (rejection.http_status, rejection.code) == (429, "insufficient_quota")
    purse.refused_until = MONOTONIC
    assert short(CHAT, state)


def test_credits_that_are_new_are_asked_for_at_once() -> None:
    state = make(available=3)
    state.purse("acme", "").refused_until = MONOTONIC + 0.5
    state.learn(Snapshot(accounts={"acme": Account(10**6, 2)}))
    assert short(CHAT, state).nano_credits == HELD


def test_a_key_with_a_budget_spends_from_a_purse_of_its_own() -> None:
    key = replace(KEY, budget=Budget(10_000, BudgetPeriod.MONTH))
    state = make(key=key)
    lend(state.purse("acme", ""), 10**6)
    assert short(CHAT, state) == Shortage("acme", "key1", HELD, missing_nano_credits=HELD)
    purse = state.purse("acme", "key1")
    purse.rest = 356 + 200
    assert short(CHAT, state).nano_credits == 356 + 200
    purse.rest, purse.refused_until = 0, MONOTONIC + 1
    rejection = decided(CHAT, state)
    assert isinstance(rejection, Rejection)
    assert (rejection.http_status, rejection.code, rejection.type) == (
        429,
        "budget_exceeded",
        "insufficient_quota",
    )


@given(
    st.integers(0, 20_000),
    st.integers(0, 20_000),
    st.integers(0, 3000),
    st.none() | st.integers(1, 3000),
    st.integers(1, 4),
)
@settings(max_examples=300, deadline=None)
def test_nothing_is_promised_that_is_not_free(
    free: int, available: int, size: int, limit: int | None, choices: int
) -> None:
    state = make(free=free, available=available)
    decision = decided(structs.replace(CHAT, asked=Asked(size, choices, limit)), state)
    if isinstance(decision, Admitted):
        assert 0 < decision.promise.nano_credits <= free
        cap = int(decision.promise.facts["max-tokens"])
        assert decision.promise.nano_credits >= choices * cap * 10 + min(size, 2048)
    elif isinstance(decision, Shortage):
        assert decision.missing_nano_credits == decision.nano_credits - free > 0
