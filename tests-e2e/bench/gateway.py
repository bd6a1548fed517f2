"""What a gateway knows in the benchmarks: many keys, accounts and models, in memory or in its database."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from random import Random

from dozen_chassis.postgres import Database
from dozen_gateway.domain.bounds import Asked
from dozen_gateway.domain.decision import Admitted, Facts, decide
from dozen_gateway.domain.keys import ApiKey, KeyParts, hash_secret, write_key
from dozen_gateway.domain.leases import Lease
from dozen_gateway.domain.state import Account, Deployment, Model, Price, Snapshot, State
from dozen_gateway.repository.read_models import ReadModelsRepository

KEYS = 100_000
MODELS = 1_000
CHAT = "/v1/chat/completions"
PLENTY = 10**15
_KEYS_AN_ACCOUNT = 10


def model_id(number: int) -> str:
    """Name one of the models."""
    return f"model-{number}"


def full_state(keys: int) -> State:
    """Give the state of a gateway that has a lease for every account."""
    state = State()
    parts = [_key_parts(number) for number in range(keys)]
    state.learn(
        Snapshot(
            whole=True,
            keys={
                part.id: ApiKey(
                    id=part.id,
                    account=part.account,
                    name="benchmark",
                    secret_sha256=hash_secret(part.secret),
                    created_at=time.time(),
                )
                for part in parts
            },
            accounts=_accounts(keys),
            models={model.id: model for model in map(_model, range(MODELS))},
            prices={model_id(number): (_price(number),) for number in range(MODELS)},
        )
    )
    for account in state.accounts:
        purse = state.purse(account, "")
        purse.lease = Lease(f"lease_{account}")
        purse.lease.granted, purse.lease.valid_until = PLENTY, float("inf")
    return state


def endless_facts(keys: int, draw: Random) -> Iterator[Facts]:
    """Give requests by any key for any model."""
    while True:
        yield Facts(
            method="POST",
            path=CHAT,
            model=model_id(draw.randrange(MODELS)),
            asked=Asked(body_bytes=draw.randint(100, 5_000), max_tokens=draw.choice((None, 100, 1_000))),
            client_address="127.0.0.1",
            api_key=write_key(_key_parts(draw.randrange(keys))),
        )


def admit(facts: Facts, state: State, draw: Random) -> None:
    """Decide on a request that is to be admitted."""
    decision = decide(facts, state, time.time(), time.monotonic(), draw)
    assert isinstance(decision, Admitted), decision


async def fill_database(database: Database, keys: int) -> None:
    """Write into a gateway's database what it knows."""
    await database.pool.execute(
        "insert into api_keys (id, account_id, name, secret_sha256, created_at, version)"
        " select 'key' || n, 'account' || n / $2, 'benchmark', sha256(convert_to('secret' || n, 'UTF8')),"
        "  now(), 1"
        " from generate_series(0, $1::bigint - 1) as n",
        keys,
        _KEYS_AN_ACCOUNT,
    )
    read_models = ReadModelsRepository(database)
    await read_models.save_accounts(_accounts(keys))
    for number in range(MODELS):
        await read_models.save_model(_model(number), datetime.now(UTC))
        await read_models.save_price(model_id(number), _price(number))


def _key_parts(number: int) -> KeyParts:
    return KeyParts(f"account{number // _KEYS_AN_ACCOUNT}", f"key{number}", f"secret{number}")


def _accounts(keys: int) -> dict[str, Account]:
    return {f"account{number}": Account(PLENTY, 1) for number in range(-(-keys // _KEYS_AN_ACCOUNT))}


def _model(number: int) -> Model:
    deployments = tuple(
        Deployment(f"{model_id(number)}-{place}", "chat", "http://127.0.0.1:1", priority=1, weight=50)
        for place in ("one", "two")
    )
    return Model(model_id(number), frozenset({"chat"}), 8192, deployments)


def _price(number: int) -> Price:
    return Price(f"price-{number}", {"input_tokens": 3, "cached_input_tokens": 1, "output_tokens": 9}, 0)
