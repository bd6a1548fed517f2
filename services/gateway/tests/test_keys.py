"""The administration of API keys: one suite on a store in memory and on PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import pytest
from google.protobuf.message import Message

from dozen.gateway.v1.gateway_events_pb2 import ApiKeyCreated, ApiKeyRevoked, ApiKeysAnnounced, ApiKeyUpdated
from dozen_chassis.errors import InvalidRequest
from dozen_chassis.postgres import Database
from dozen_gateway.domain.key_requests import Answered, KeyRequest
from dozen_gateway.domain.key_terms import KeyTerms, TermChanges, changes_to, terms_of
from dozen_gateway.domain.keys import (
    ApiKey,
    Budget,
    BudgetPeriod,
    hash_secret,
    is_secret_of,
    read_key,
)
from dozen_gateway.domain.limits import RateLimits
from dozen_gateway.domain.state import Snapshot, State
from dozen_gateway.errors.keys import (
    AnswerLost,
    IdempotencyKeyReused,
    InsufficientPermissions,
    InvalidAccountId,
    InvalidIdempotencyKey,
    KeyNotFound,
    TooManyKeys,
)
from dozen_gateway.repository.keys import KeysRepository
from dozen_gateway.service.key_messages import api_key_message
from dozen_gateway.service.key_store import KeyStore
from dozen_gateway.service.keys import MOST_KEYS, Issued, KeyService

NOW = 1_700_000_000.123456
HOUR = 3600.0
DAY = 24 * HOUR
LAPTOP = KeyTerms("laptop")
FULL = KeyTerms(
    "batch",
    {"team": "search", "note": ""},
    frozenset({"/v1/files", "/v1/chat/completions"}),
    frozenset({"acme/smol", "not there yet"}),
    RateLimits(requests_per_minute=60, concurrent_requests=2),
    Budget(10_500_000_000, BudgetPeriod.MONTH),
    NOW + DAY,
)


@dataclass
class FakeKeyStore:
    """Keys in memory; transactions follow each other."""

    keys: dict[str, ApiKey] = field(default_factory=dict)
    answers: dict[tuple[str, str], Answered] = field(default_factory=dict)
    events: list[Message] = field(default_factory=list)
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[KeyStore]:
        async with self.turn:
            before = dict(self.keys), dict(self.answers), list(self.events)
            try:
                yield self
            except Exception:
                self.keys, self.answers, self.events = before
                raise

    async def emit(self, event: Message) -> None:
        self.events.append(event)

    async def lock_account(self, account: str) -> None: ...

    async def add_key(self, key: ApiKey) -> None:
        self.keys[key.id] = key

    async def save_key(self, key: ApiKey) -> None:
        self.keys[key.id] = key

    async def count_keys(self, account: str) -> int:
        return len(self._of(account, revoked=False))

    async def find_key(self, account: str, key_id: str) -> ApiKey | None:
        return next((key for key in self._of(account, revoked=True) if key.id == key_id), None)

    async def list_keys(
        self, account: str, *, limit: int, after: str | None, newest_first: bool, revoked: bool
    ) -> list[ApiKey]:
        found = sorted(
            self._of(account, revoked=True), key=lambda key: (key.created_at, key.id), reverse=newest_first
        )
        if after is not None:
            places = [place for place, key in enumerate(found, 1) if key.id == after]
            found = found[places[0] :] if places else []
        return [key for key in found if revoked or key.revoked_at is None][:limit]

    async def page_keys(self, after: str, limit: int) -> list[ApiKey]:
        return [key for id, key in sorted(self.keys.items()) if id > after][:limit]

    async def find_answer(self, request: KeyRequest, since: float) -> Answered | None:
        found = self.answers.get((request.account, request.idempotency_key))
        return found if found is not None and found.at > since else None

    async def save_answer(self, request: KeyRequest, answered: Answered) -> None:
        self.answers[request.account, request.idempotency_key] = answered

    async def forget_answers(self, before: float, limit: int) -> int:
        old = [name for name, answered in self.answers.items() if answered.at < before][:limit]
        for name in old:
            del self.answers[name]
        return len(old)

    def _of(self, account: str, *, revoked: bool) -> list[ApiKey]:
        return [
            key for key in self.keys.values() if key.account == account and (revoked or not key.revoked_at)
        ]


@dataclass
class Stage:
    """The key service on a store, at a time that the test sets."""

    store: KeyStore
    database: Database | None = None
    state: State = field(default_factory=State)
    now: float = NOW

    @property
    def keys(self) -> KeyService:
        return self.service(b"server key")

    def service(self, secrets_key: bytes) -> KeyService:
        return KeyService(self.store, self.state, secrets_key, clock=self._tick)

    def _tick(self) -> float:
        self.now += 0.001  # so that nothing happens at once
        return self.now

    async def kept(self, key: ApiKey) -> ApiKey:
        found = await self.store.find_key(key.account, key.id)
        assert found is not None
        return found

    async def published(self) -> list[Message]:
        if self.database is not None:
            kinds = {
                kind.DESCRIPTOR.full_name: kind
                for kind in (ApiKeyCreated, ApiKeyUpdated, ApiKeyRevoked, ApiKeysAnnounced)
            }
            rows = await self.database.pool.fetch("select subject, payload from outbox order by id")
            return [kinds[row["subject"]].FromString(row["payload"]) for row in rows]
        assert isinstance(self.store, FakeKeyStore)
        return self.store.events


@pytest.fixture(params=["fake", pytest.param("postgres", marks=pytest.mark.integration)])
def stage(request: pytest.FixtureRequest) -> Stage:
    if request.param == "fake":
        return Stage(FakeKeyStore())
    database: Database = request.getfixturevalue("database")
    return Stage(KeysRepository(database), database)


def accepts(key: ApiKey, text: str, now: float) -> bool:
    parts = read_key(text)
    assert parts is not None
    assert (parts.account, parts.id) == (key.account, key.id)
    return is_secret_of(key, parts, now)


async def test_a_key_is_shown_once_and_only_the_hash_of_its_secret_is_kept(stage: Stage) -> None:
    issued = await stage.keys.create("acme", LAPTOP)
    kept = await stage.kept(issued.key)
    assert kept == issued.key
    assert accepts(kept, issued.text, stage.now)
    secret = issued.text.split("-")[3]
    assert secret not in repr(kept)
    assert repr(hash_secret(secret)) not in repr(kept)
    assert await stage.published() == [ApiKeyCreated(api_key=api_key_message(kept))]


@pytest.mark.integration
async def test_a_secret_is_nowhere_in_the_database(database: Database) -> None:
    keys = KeyService(KeysRepository(database), State(), b"server key")
    issued = [await keys.create("acme", LAPTOP, "once"), await keys.create("acme", LAPTOP)]
    issued.append(await keys.rotate("acme", issued[0].key.id, idempotency_key="turn"))
    for table in ("api_keys", "key_requests", "outbox"):
        rows = await database.pool.fetch(f"select to_jsonb(kept)::text from {table} kept")
        assert rows
        for one in issued:
            secret = one.text.split("-")[3]
            assert not any(secret in row[0] or secret.encode().hex() in row[0] for row in rows)


async def test_all_terms_are_kept(stage: Stage) -> None:
    key = (await stage.keys.create("acme", FULL)).key
    assert terms_of(key) == FULL
    assert await stage.kept(key) == key
    (created,) = await stage.published()
    assert created == ApiKeyCreated(api_key=api_key_message(key))


async def test_a_key_can_be_used_before_the_database_has_told_of_it(stage: Stage) -> None:
    key = (await stage.keys.create("acme", LAPTOP)).key
    assert stage.state.keys[key.id] == key
    key = (await stage.keys.rotate("acme", key.id)).key
    assert stage.state.keys[key.id] == key
    key = await stage.keys.update("acme", key.id, {"name": "desk"})
    assert stage.state.keys[key.id] == key
    key = await stage.keys.revoke("acme", key.id)
    assert stage.state.keys[key.id] == key


async def test_what_was_read_of_a_key_before_it_changed_does_not_replace_it(stage: Stage) -> None:
    before = (await stage.keys.create("acme", LAPTOP)).key
    after = await stage.keys.revoke("acme", before.id)
    stage.state.learn(Snapshot(keys={before.id: before}))
    assert stage.state.keys[before.id] == after
    stage.state.learn(Snapshot(whole=True, keys={before.id: before}))
    assert stage.state.keys[before.id] == after


async def test_an_account_id_that_is_none_is_refused(stage: Stage) -> None:
    for account in ("", "ACME", "a-b", "a" * 33, "a\n"):
        with pytest.raises(InvalidAccountId):
            await stage.keys.create(account, LAPTOP)


async def test_terms_that_are_not_valid_are_refused(stage: Stage) -> None:
    with pytest.raises(InvalidRequest, match="100 characters"):
        await stage.keys.create("acme", KeyTerms("n" * 101))
    key = (await stage.keys.create("acme", LAPTOP)).key
    with pytest.raises(InvalidRequest, match="100 characters") as refused:
        await stage.keys.update("acme", key.id, {"name": "n" * 101})
    assert refused.value.param == "name"
    assert await stage.kept(key) == key


async def test_an_expiry_must_be_in_the_future_when_it_is_set(stage: Stage) -> None:
    with pytest.raises(InvalidRequest, match="future"):
        await stage.keys.create("acme", KeyTerms("late", expires_at=NOW))
    key = (await stage.keys.create("acme", KeyTerms("soon", expires_at=NOW + 1))).key
    with pytest.raises(InvalidRequest, match="future"):
        await stage.keys.update("acme", key.id, {"expires_at": NOW})
    stage.now += HOUR
    renamed = await stage.keys.update("acme", key.id, {"name": "was soon"})
    assert (renamed.name, renamed.expires_at) == ("was soon", NOW + 1)
    revived = await stage.keys.update("acme", key.id, {"expires_at": None})
    assert revived.expires_at is None


async def test_an_update_changes_what_it_names(stage: Stage) -> None:
    issued = await stage.keys.create("acme", FULL)
    changes = TermChanges(models=frozenset({"b"}), limits=None)
    key = await stage.keys.update("acme", issued.key.id, changes)
    assert terms_of(key) == replace(FULL, models=frozenset({"b"}), limits=None)
    assert await stage.kept(key) == key
    assert accepts(key, issued.text, stage.now)
    bare = await stage.keys.update("acme", key.id, changes_to(LAPTOP))
    assert terms_of(bare) == LAPTOP
    assert await stage.kept(key) == bare
    _, first, second = await stage.published()
    assert [first, second] == [
        ApiKeyUpdated(api_key=api_key_message(key)),
        ApiKeyUpdated(api_key=api_key_message(bare)),
    ]
    assert (issued.key.version, key.version, bare.version) == (1, 2, 3)


async def test_an_update_that_changes_nothing_is_not_told(stage: Stage) -> None:
    key = (await stage.keys.create("acme", FULL)).key
    assert await stage.keys.update("acme", key.id, changes_to(FULL)) == key
    assert await stage.keys.update("acme", key.id, {}) == key
    assert len(await stage.published()) == 1


async def test_after_a_rotation_both_secrets_are_accepted_until_the_grace_is_over(stage: Stage) -> None:
    old = await stage.keys.create("acme", FULL)
    new = await stage.keys.rotate("acme", old.key.id, grace=HOUR)
    kept = await stage.kept(new.key)
    assert kept == new.key
    end = kept.previous_until
    assert end is not None
    assert end == pytest.approx(stage.now + HOUR)
    for text, lives_on in ((old.text, False), (new.text, True)):
        assert accepts(kept, text, end - 0.001)
        assert accepts(kept, text, end) is lives_on
    assert terms_of(kept) == FULL
    assert (await stage.published())[1:] == [ApiKeyUpdated(api_key=api_key_message(kept))]


async def test_without_grace_the_old_secret_is_refused_at_once(stage: Stage) -> None:
    old = await stage.keys.create("acme", LAPTOP)
    await stage.keys.rotate("acme", old.key.id, grace=HOUR)
    new = await stage.keys.rotate("acme", old.key.id, grace=0)
    assert not accepts(await stage.kept(old.key), old.text, stage.now)
    assert accepts(await stage.kept(old.key), new.text, stage.now)


async def test_of_several_rotations_the_last_two_secrets_are_accepted(stage: Stage) -> None:
    first = await stage.keys.create("acme", LAPTOP)
    second, third = [await stage.keys.rotate("acme", first.key.id) for _ in range(2)]
    kept = await stage.kept(first.key)
    assert [accepts(kept, one.text, stage.now) for one in (first, second, third)] == [False, True, True]


async def test_a_grace_that_is_too_long_is_refused(stage: Stage) -> None:
    key = (await stage.keys.create("acme", LAPTOP)).key
    for grace in (-1, 30 * DAY + 1, float("nan")):
        with pytest.raises(InvalidRequest, match="grace period"):
            await stage.keys.rotate("acme", key.id, grace=grace)


async def test_revoking_twice_changes_nothing(stage: Stage) -> None:
    key = (await stage.keys.create("acme", LAPTOP)).key
    first = await stage.keys.revoke("acme", key.id)
    assert first.revoked_at is not None
    assert await stage.keys.revoke("acme", key.id) == first
    assert (await stage.published())[1:] == [ApiKeyRevoked(api_key=api_key_message(first))]


async def test_a_revoked_key_never_comes_back(stage: Stage) -> None:
    key = (await stage.keys.create("acme", LAPTOP)).key
    revoked = await stage.keys.revoke("acme", key.id)
    with pytest.raises(KeyNotFound):
        await stage.keys.get("acme", key.id)
    with pytest.raises(KeyNotFound):
        await stage.keys.update("acme", key.id, {"name": "again"})
    with pytest.raises(KeyNotFound):
        await stage.keys.rotate("acme", key.id)
    assert await stage.kept(key) == revoked


async def test_a_key_of_another_account_is_not_found(stage: Stage) -> None:
    key = (await stage.keys.create("acme", LAPTOP)).key
    for account, key_id in (("other", key.id), ("acme", "key_0")):
        for attempt in (
            stage.keys.get(account, key_id),
            stage.keys.update(account, key_id, {"name": "mine"}),
            stage.keys.rotate(account, key_id),
            stage.keys.revoke(account, key_id),
        ):
            with pytest.raises(KeyNotFound):
                await attempt
    assert await stage.kept(key) == key


@pytest.mark.parametrize("newest_first", [True, False])
async def test_pages_follow_each_other_without_revoked_keys(stage: Stage, newest_first: bool) -> None:
    made = [(await stage.keys.create("acme", KeyTerms(str(number)))).key.id for number in range(6)]
    await stage.keys.create("other", KeyTerms("not mine"))
    await stage.keys.revoke("acme", made.pop(2))
    expected = made[::-1] if newest_first else made
    seen: list[str] = []
    has_more, after = True, None
    while has_more:
        page, has_more = await stage.keys.list("acme", limit=2, after=after, newest_first=newest_first)
        seen += [key.id for key in page]
        after = seen[-1]
    assert seen == expected


async def test_a_page_goes_on_behind_a_key_that_was_revoked_meanwhile(stage: Stage) -> None:
    older, newer = [(await stage.keys.create("acme", LAPTOP)).key.id for _ in range(2)]
    await stage.keys.revoke("acme", newer)
    page, has_more = await stage.keys.list("acme", limit=2, after=newer)
    assert ([key.id for key in page], has_more) == ([older], False)


async def test_all_keys_are_listed_with_the_revoked_ones(stage: Stage) -> None:
    older, newer = [(await stage.keys.create("acme", LAPTOP)).key.id for _ in range(2)]
    await stage.keys.revoke("acme", older)
    listed = await stage.keys.list_all("acme")
    assert [(key.id, key.revoked_at is None) for key in listed] == [(newer, True), (older, False)]


async def test_an_account_has_so_many_keys_at_most() -> None:
    store = FakeKeyStore()
    keys = KeyService(store, State(), b"server key")
    key = (await keys.create("acme", LAPTOP)).key
    for number in range(MOST_KEYS - 1):
        store.keys[f"more{number}"] = replace(key, id=f"more{number}", secret_sha256=hash_secret("x"))
    with pytest.raises(TooManyKeys):
        await keys.create("acme", KeyTerms("one more"), "once")
    assert not store.answers
    await keys.revoke("acme", key.id)
    assert not (await keys.create("acme", KeyTerms("one more"), "once")).is_replayed


async def test_a_creation_is_replayed_whatever_has_become_of_the_key(stage: Stage) -> None:
    first = await stage.keys.create("acme", FULL, "once")
    assert not first.is_replayed
    await stage.keys.update("acme", first.key.id, changes_to(LAPTOP))
    stage.now += DAY - HOUR
    again = await stage.keys.create("acme", FULL, "once")
    assert again == Issued(first.key, first.text, is_replayed=True)
    assert accepts(await stage.kept(first.key), again.text, stage.now)
    assert len(await stage.published()) == 2
    assert len(await stage.keys.list_all("acme")) == 1


async def test_a_rotation_is_replayed(stage: Stage) -> None:
    old = await stage.keys.create("acme", FULL)
    new = await stage.keys.rotate("acme", old.key.id, grace=60, idempotency_key="once")
    await stage.keys.update("acme", old.key.id, {"name": "renamed"})
    again = await stage.keys.rotate("acme", old.key.id, grace=60, idempotency_key="once")
    assert again == Issued(new.key, new.text, is_replayed=True)
    kept = await stage.kept(old.key)
    assert accepts(kept, new.text, stage.now)
    assert accepts(kept, old.text, stage.now)
    assert kept.version == 3


async def test_an_idempotency_key_is_for_one_request(stage: Stage) -> None:
    key = (await stage.keys.create("acme", LAPTOP, "once")).key
    for attempt in (
        stage.keys.create("acme", KeyTerms("desk"), "once"),
        stage.keys.rotate("acme", key.id, idempotency_key="once"),
    ):
        with pytest.raises(IdempotencyKeyReused):
            await attempt
    await stage.keys.rotate("acme", key.id, grace=60, idempotency_key="turn")
    with pytest.raises(IdempotencyKeyReused):
        await stage.keys.rotate("acme", key.id, grace=61, idempotency_key="turn")
    assert len(await stage.published()) == 2


async def test_an_idempotency_key_is_the_accounts_own(stage: Stage) -> None:
    mine, theirs = [await stage.keys.create(account, LAPTOP, "once") for account in ("acme", "other")]
    assert mine.key.id != theirs.key.id
    assert not theirs.is_replayed


async def test_an_idempotency_key_lasts_a_day_and_brings_no_old_secret_back(stage: Stage) -> None:
    first = await stage.keys.create("acme", LAPTOP, "once")
    turned = await stage.keys.rotate("acme", first.key.id, grace=0, idempotency_key="turn")
    stage.now += DAY
    second = await stage.keys.create("acme", LAPTOP, "once")
    assert not second.is_replayed
    assert second.key.id != first.key.id
    again = await stage.keys.rotate("acme", first.key.id, grace=0, idempotency_key="turn")
    assert not again.is_replayed
    assert not accepts(await stage.kept(first.key), turned.text, stage.now)
    assert await stage.keys.create("acme", LAPTOP, "once") == replace(second, is_replayed=True)


async def test_an_idempotency_key_that_is_none_is_refused(stage: Stage) -> None:
    for idempotency_key in ("", "k" * 256, "é", "a\nb"):
        with pytest.raises(InvalidIdempotencyKey):
            await stage.keys.create("acme", LAPTOP, idempotency_key)
        with pytest.raises(InvalidIdempotencyKey):
            await stage.keys.rotate("acme", "key_1", idempotency_key=idempotency_key)


async def test_a_secret_that_the_server_can_no_longer_tell_is_not_made_up(stage: Stage) -> None:
    await stage.keys.create("acme", LAPTOP, "once")
    with pytest.raises(AnswerLost):
        await stage.service(b"another server key").create("acme", LAPTOP, "once")


async def test_requests_at_once_under_one_idempotency_key_have_one_effect(stage: Stage) -> None:
    asked = [stage.keys.create("acme", FULL, "once") for _ in range(20)]
    issued = await asyncio.gather(*asked)
    assert {one.text for one in issued} == {issued[0].text}
    assert [one.is_replayed for one in issued].count(False) == 1
    turned = await asyncio.gather(
        *[stage.keys.rotate("acme", issued[0].key.id, idempotency_key="turn") for _ in range(20)]
    )
    assert {one.text for one in turned} == {turned[0].text}
    assert (await stage.kept(issued[0].key)).version == 2
    assert len(await stage.published()) == 2


async def test_changes_at_once_are_all_made(stage: Stage) -> None:
    key = (await stage.keys.create("acme", LAPTOP)).key
    await asyncio.gather(
        stage.keys.update("acme", key.id, {"name": "desk"}),
        stage.keys.update("acme", key.id, {"models": frozenset({"smol"})}),
        stage.keys.rotate("acme", key.id),
        stage.keys.update("acme", key.id, {"labels": {"a": "b"}}),
    )
    kept = await stage.kept(key)
    assert terms_of(kept) == KeyTerms("desk", {"a": "b"}, models=frozenset({"smol"}))
    assert kept.previous_sha256 == key.secret_sha256
    assert kept.version == 5
    assert stage.state.keys[key.id] == kept


@pytest.mark.parametrize(
    "changes",
    [
        TermChanges(endpoints=frozenset({"/v1/keys"})),
        TermChanges(models=frozenset({"smol"})),
        TermChanges(limits=RateLimits(requests_per_minute=1)),
        TermChanges(budget=Budget(1, BudgetPeriod.TOTAL)),
        TermChanges(expires_at=NOW + DAY),
    ],
    ids=lambda changes: next(iter(changes)),
)
async def test_a_restricted_key_administers_no_keys(stage: Stage, changes: TermChanges) -> None:
    key = (await stage.keys.create("acme", LAPTOP)).key
    await stage.keys.check_administrator("acme", key.id)
    await stage.keys.update("acme", key.id, changes)
    with pytest.raises(InsufficientPermissions):
        await stage.keys.check_administrator("acme", key.id)
    await stage.keys.update("acme", key.id, changes_to(replace(LAPTOP, labels={"a": "b"})))
    await stage.keys.check_administrator("acme", key.id)
    await stage.keys.revoke("acme", key.id)
    for account, key_id in (("acme", key.id), ("other", key.id), ("acme", "key_0")):
        with pytest.raises(InsufficientPermissions):
            await stage.keys.check_administrator(account, key_id)


async def test_all_keys_are_announced_as_they_are(stage: Stage) -> None:
    made = [(await stage.keys.create(f"a{number % 7}", KeyTerms(str(number)))).key for number in range(205)]
    updated = await stage.keys.update(made[0].account, made[0].id, changes_to(FULL))
    revoked = await stage.keys.revoke(made[1].account, made[1].id)
    known = {key.id: api_key_message(key) for key in [*made, updated, revoked]}
    before = len(await stage.published())
    await stage.keys.announce()
    announced = (await stage.published())[before:]
    keys = [key for event in announced if isinstance(event, ApiKeysAnnounced) for key in event.api_keys]
    assert len(announced) == 2
    assert keys == [known[id] for id in sorted(known)]


async def test_answers_are_forgotten_after_a_day(stage: Stage) -> None:
    for number in range(3):
        await stage.keys.create("acme", LAPTOP, f"once{number}")
    stage.now += DAY
    fresh = await stage.keys.create("acme", LAPTOP, "fresh")
    await stage.keys.forget_answers()
    assert await stage.keys.create("acme", LAPTOP, "fresh") == replace(fresh, is_replayed=True)
    if stage.database is not None:
        rows = await stage.database.pool.fetch("select idempotency_key from key_requests")
        assert [row["idempotency_key"] for row in rows] == ["fresh"]
