"""What the tests of the gateway share."""

from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from dozen_gateway.domain.keys import ApiKey, KeyParts, hash_secret, write_key
from dozen_gateway.domain.state import Account, Deployment, Model, Price, Snapshot, State

ACCOUNT = "acme"
KEY = KeyParts(ACCOUNT, "key1", "5ecret")


@pytest.fixture
def api_key() -> str:
    """The key of an account with credits."""
    return write_key(KEY)


@pytest.fixture
def known() -> Callable[[str], Snapshot]:
    """Gives a database with one key, account and chat model, which is served at an address."""

    def make(address: str) -> Snapshot:
        deployment = Deployment("smol-chat", "chat", address, priority=1, weight=100)
        speech = Deployment("hibari-audio", "audio", address, priority=1, weight=100)
        whisper = Deployment("whisper-audio", "audio", address, priority=1, weight=100)
        models = [
            Model("smol", frozenset({"chat"}), 2048, (deployment,)),
            Model("whisper", frozenset({"audio.transcriptions"}), 0, (whisper,)),
            Model("hibari", frozenset({"audio.speech"}), 0, (speech,)),
        ]
        return Snapshot(
            whole=True,
            keys={KEY.id: ApiKey(KEY.id, ACCOUNT, "test", hash_secret(KEY.secret), datetime.now(UTC))},
            accounts={ACCOUNT: Account(available_nano_credits=10**9, version=1)},
            models={model.id: model for model in models},
            prices={model.id: (Price(f"price-{model.id}", {"input_tokens": 1}, 0),) for model in models},
        )

    return make


@pytest.fixture
def state(known: Callable[[str], Snapshot]) -> State:
    """What is known, with every model at `http://upstream`."""
    state = State()
    state.learn(known("http://upstream"))
    return state
