"""The rules of API keys: secrets and their grace, revocation and expiry, scopes and terms."""

from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dozen_gateway.domain import key_terms
from dozen_gateway.domain.key_requests import (
    create_request,
    derive_secret,
    is_idempotency_key,
    rotate_request,
)
from dozen_gateway.domain.key_terms import (
    ENDPOINTS,
    LARGEST_BUDGET,
    LARGEST_LIMIT,
    LATEST_EXPIRY,
    KeyTerms,
    TermChanges,
    changed,
    changes_to,
    faults,
    new_key,
    read_credits,
    terms_of,
    write_credits,
)
from dozen_gateway.domain.keys import (
    ApiKey,
    Budget,
    BudgetPeriod,
    KeyParts,
    allows_endpoint,
    allows_model,
    hash_secret,
    is_restricted,
    is_secret_of,
    is_usable,
    read_key,
    revoked,
    with_secret,
    write_key,
)
from dozen_gateway.domain.limits import RateLimits

bounded = settings(max_examples=200, deadline=None)

NOW = 1_000_000.0
KEY = ApiKey("key_1", "acme", "laptop", hash_secret("s0"), NOW)
BUDGET = Budget(10**9, BudgetPeriod.MONTH)

seconds = st.integers(0, 10_000).map(float)
segments = st.lists(st.sampled_from(["v1", "files", "file", "jobs", "chat"]), min_size=1, max_size=4)
paths = segments.map(lambda names: "/" + "/".join(names))
scopes = st.frozensets(st.sampled_from(["a", "b", "c/d"]))
limits = st.builds(RateLimits, *[st.none() | st.integers(1, LARGEST_LIMIT)] * 3)
budgets = st.builds(Budget, st.integers(1, LARGEST_BUDGET), st.sampled_from(BudgetPeriod))
texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=20)
terms = st.builds(
    KeyTerms,
    texts,
    st.dictionaries(texts, texts, max_size=3),
    st.frozensets(st.sampled_from(sorted(ENDPOINTS))),
    scopes,
    st.none() | limits,
    st.none() | budgets,
    st.none() | seconds,
)


@bounded
@given(
    st.builds(
        KeyParts,
        st.from_regex(r"[a-z0-9]{1,32}", fullmatch=True),
        st.from_regex(r"key_[0-9a-f]{16}", fullmatch=True),
        st.from_regex(r"[0-9a-f]{48}", fullmatch=True),
    )
)
def test_a_key_is_read_as_it_was_written(parts: KeyParts) -> None:
    assert read_key(write_key(parts)) == parts


@bounded
@given(st.lists(st.tuples(seconds, st.just(0.0) | seconds), max_size=5), seconds)
def test_the_secret_and_for_its_grace_the_one_before_are_accepted_and_no_other(
    rotations: list[tuple[float, float]], wait: float
) -> None:
    key, now, live = KEY, NOW, {"s0": float("inf")}
    for number, (pause, grace) in enumerate(rotations, 1):
        now += pause
        key = with_secret(key, hash_secret(f"s{number}"), now, grace)
        live = {f"s{number - 1}": now + grace, f"s{number}": float("inf")}
    asked = now + wait
    for number in range(len(rotations) + 1):
        secret = f"s{number}"
        accepted = is_secret_of(key, KeyParts("acme", key.id, secret), asked)
        assert accepted == (asked < live.get(secret, 0.0))
        assert not is_secret_of(key, KeyParts("other", key.id, secret), asked)
    assert not is_secret_of(key, KeyParts("acme", key.id, "none"), asked)
    assert key.version == 1 + len(rotations)


@bounded
@given(st.none() | seconds, st.none() | seconds, seconds)
def test_a_key_is_usable_until_it_expires_unless_it_is_revoked(
    revoked_at: float | None, expires_at: float | None, now: float
) -> None:
    key = replace(KEY, revoked_at=revoked_at, expires_at=expires_at)
    assert is_usable(key, now) == (revoked_at is None and not (expires_at is not None and now >= expires_at))


def test_a_revoked_key_is_refused_whatever_the_clock_says() -> None:
    assert not is_usable(revoked(KEY, NOW), NOW - 1000)


@bounded
@given(st.frozensets(paths, max_size=3), paths)
def test_a_scope_allows_its_paths_and_what_is_below_them(scope: frozenset[str], path: str) -> None:
    asked = path.split("/")
    below = any(asked[: len(allowed)] == allowed for allowed in (one.split("/") for one in scope))
    assert allows_endpoint(replace(KEY, endpoints=scope), path) == (below or not scope)


def test_a_path_that_only_begins_alike_is_not_below() -> None:
    key = replace(KEY, endpoints=frozenset({"/v1/files"}))
    assert allows_endpoint(key, "/v1/files")
    assert allows_endpoint(key, "/v1/files/file-1/content")
    assert not allows_endpoint(key, "/v1/filesystem")
    assert not allows_endpoint(key, "/v1")


@bounded
@given(scopes, st.sampled_from(["a", "b", "c", "c/d", ""]))
def test_a_scope_allows_its_models(scope: frozenset[str], model: str) -> None:
    assert allows_model(replace(KEY, models=scope), model) == (not scope or model in scope)


@bounded
@given(terms)
def test_a_key_is_restricted_unless_it_may_do_all_that_its_account_may(terms: KeyTerms) -> None:
    key = new_key("key_1", "acme", terms, b"", NOW)
    free = KeyTerms(terms.name, terms.labels)
    assert is_restricted(key) == (terms != free)


@bounded
@given(terms, terms)
def test_changes_lead_to_other_terms_and_count_once(before: KeyTerms, after: KeyTerms) -> None:
    key = new_key("key_1", "acme", before, b"secret", NOW)
    assert terms_of(key) == before
    new = changed(key, changes_to(after))
    assert terms_of(new) == after
    assert new.version == key.version + (before != after)
    assert replace(new, **changes_to(before), version=1) == key
    assert changed(new, changes_to(after)) is new
    assert changed(key, TermChanges()) is key


@bounded
@given(terms)
def test_terms_within_the_bounds_are_valid(terms: KeyTerms) -> None:
    assert not list(faults(terms))


@pytest.mark.parametrize(
    ("terms", "param"),
    [
        (KeyTerms(""), "name"),
        (KeyTerms("n" * 101), "name"),
        (KeyTerms("a\0b"), "name"),
        (KeyTerms("n", labels={str(number): "" for number in range(17)}), "labels"),
        (KeyTerms("n", labels={"": "x"}), "labels"),
        (KeyTerms("n", labels={"k" * 65: "x"}), "labels"),
        (KeyTerms("n", labels={"k": "v" * 257}), "labels"),
        (KeyTerms("n", labels={"k": "\0"}), "labels"),
        (KeyTerms("n", endpoints=frozenset({"/v1/nothing"})), "endpoints"),
        (KeyTerms("n", endpoints=frozenset({"/v1"})), "endpoints"),
        (KeyTerms("n", endpoints=frozenset({"/v1/files/{id}"})), "endpoints"),
        (KeyTerms("n", models=frozenset({""})), "models"),
        (KeyTerms("n", models=frozenset({"m" * 257})), "models"),
        (KeyTerms("n", models=frozenset(map(str, range(101)))), "models"),
        (KeyTerms("n", limits=RateLimits(requests_per_minute=0)), "limits"),
        (KeyTerms("n", limits=RateLimits(tokens_per_minute=-1)), "limits"),
        (KeyTerms("n", limits=RateLimits(concurrent_requests=LARGEST_LIMIT + 1)), "limits"),
        (KeyTerms("n", budget=Budget(0, BudgetPeriod.TOTAL)), "budget"),
        (KeyTerms("n", budget=Budget(LARGEST_BUDGET + 1, BudgetPeriod.TOTAL)), "budget"),
        (KeyTerms("n", expires_at=-1), "expires_at"),
        (KeyTerms("n", expires_at=LATEST_EXPIRY + 1), "expires_at"),
    ],
)
def test_a_term_that_is_not_valid_is_named(terms: KeyTerms, param: str) -> None:
    assert [fault.param for fault in faults(terms)] == [param]


def test_the_largest_terms_are_valid() -> None:
    largest = KeyTerms(
        "n" * 100,
        {f"{number:064}": "v" * 256 for number in range(16)},
        ENDPOINTS,
        frozenset(f"{number:0256}" for number in range(100)),
        RateLimits(LARGEST_LIMIT, LARGEST_LIMIT, LARGEST_LIMIT),
        Budget(LARGEST_BUDGET, BudgetPeriod.TOTAL),
        LATEST_EXPIRY,
    )
    assert not list(faults(largest))


def test_scopes_name_the_paths_of_the_route_table() -> None:
    assert {"/v1/chat/completions", "/v1/files", "/v1/jobs", "/v1/models"} <= key_terms.ENDPOINTS
    assert not any("{" in endpoint for endpoint in key_terms.ENDPOINTS)


@bounded
@given(st.integers(0, LARGEST_BUDGET))
def test_an_amount_is_read_as_it_was_written(nano_credits: int) -> None:
    assert read_credits(write_credits(nano_credits)) == nano_credits


@bounded
@given(st.from_regex(r"[0-9]{1,10}(\.[0-9]{1,9})?", fullmatch=True))
def test_an_amount_is_exact(text: str) -> None:
    assert read_credits(text) == int(Decimal(text) * 10**9)


@pytest.mark.parametrize("text", ["", "-1", "+1", "1.", ".5", "1e3", "1,5", "0.0000000001", " 1", "1\n", "١"])
def test_what_is_no_amount_is_not_read(text: str) -> None:
    assert read_credits(text) is None


@pytest.mark.parametrize(("text", "fit"), [("k", True), ("k" * 255, True), ("", False), ("k" * 256, False)])
def test_an_idempotency_key_has_a_length(text: str, fit: bool) -> None:
    assert is_idempotency_key(text) is fit
    assert not is_idempotency_key(f"é{text}")
    assert not is_idempotency_key(f"\n{text}")


def test_a_derived_secret_depends_on_all_that_it_is_derived_from() -> None:
    request = create_request("acme", "once", KeyTerms("laptop"))
    secrets = [
        derive_secret(b"server", request, "key_1", NOW),
        derive_secret(b"other", request, "key_1", NOW),
        derive_secret(b"server", replace(request, account="other"), "key_1", NOW),
        derive_secret(b"server", replace(request, idempotency_key="twice"), "key_1", NOW),
        derive_secret(b"server", replace(request, operation="rotate"), "key_1", NOW),
        derive_secret(b"server", request, "key_2", NOW),
        derive_secret(b"server", request, "key_1", NOW + 0.000_001),
    ]
    assert len(set(secrets)) == len(secrets)
    assert all(len(secret) == 48 for secret in secrets)
    assert derive_secret(b"server", request, "key_1", NOW) == secrets[0]


@bounded
@given(terms, terms)
def test_requests_are_equal_where_they_ask_for_the_same(one: KeyTerms, other: KeyTerms) -> None:
    first, second = create_request("acme", "once", one), create_request("acme", "once", other)
    assert (first.fingerprint == second.fingerprint) == (one == other)
    reordered = replace(one, labels=dict(reversed(list(one.labels.items()))))
    assert create_request("acme", "again", reordered).fingerprint == first.fingerprint


def test_a_rotation_is_another_request_than_a_creation_and_than_that_of_another_key() -> None:
    asked = [
        create_request("acme", "once", KeyTerms("laptop")),
        rotate_request("acme", "once", "key_1", 0),
        rotate_request("acme", "once", "key_1", 60),
        rotate_request("acme", "once", "key_2", 60),
    ]
    assert len({request.fingerprint for request in asked}) == len(asked)
