"""What the tests of the gateway share."""

from collections import Counter
from collections.abc import Callable

import pytest

from dozen_gateway.domain.keys import ApiKey, KeyParts, hash_secret, write_key
from dozen_gateway.domain.leases import Lease, LeaseAnswer, LeaseWish
from dozen_gateway.domain.limits import Cost
from dozen_gateway.domain.route_table import ROUTES
from dozen_gateway.domain.state import Account, Deployment, Model, Price, Snapshot, State
from dozen_gateway.service.decisions import DecisionService
from dozen_gateway.service.holds import HoldService
from dozen_gateway.service.leases import LeaseService

ACCOUNT = "acme"
NOW = 1_000_000.0
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
            keys={KEY.id: ApiKey(KEY.id, ACCOUNT, "test", hash_secret(KEY.secret), NOW)},
            accounts={ACCOUNT: Account(available_nano_credits=10**9, version=1)},
            models={model.id: model for model in models},
            prices={model.id: (Price(f"price-{model.id}", {"input_tokens": 1}, 0),) for model in models},
        )

    return make


@pytest.fixture
def state(known: Callable[[str], Snapshot]) -> State:
    """What is known, with every model at `http://upstream`, and a lease that pays for all."""
    state = State()
    state.learn(known("http://upstream"))
    lease = state.purse(ACCOUNT, "").lease = Lease("lease_1")
    lease.granted, lease.valid_until = 10**9, float("inf")
    return state


class GenerousCredits:
    """Credits that lease what is asked for, as long as the account is known to have something."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._granted: Counter[str] = Counter()

    async def acquire(self, wish: LeaseWish) -> LeaseAnswer:
        balance = self._state.accounts.get(wish.account, Account(0, 0))
        added = wish.needed if wish.needed <= balance.available_nano_credits else 0
        self._granted[wish.account] += added
        granted = self._granted[wish.account]
        lease_id = f"lease_{wish.account}" if granted else ""
        return LeaseAnswer(
            lease_id, granted, added, 60.0, balance.available_nano_credits, balance.version, None
        )

    async def release(self, lease_id: str, held: int) -> tuple[int, bool]:
        return 0, True


class NoLimits:
    """Takes back what nobody was granted."""

    async def draw(self, costs: tuple[Cost, ...]) -> None:
        """Grant nothing."""

    def finish(self, costs: tuple[Cost, ...], used_tokens: int) -> None:
        """Take nothing back."""


class NoNews:
    """Knows no key beyond those in memory."""

    async def look_up(self, api_key: str) -> bool:
        """Find nothing."""
        return False


@pytest.fixture
def holds_on() -> Callable[[State], HoldService]:
    """Makes the holds of a state, without limits."""
    return lambda state: HoldService(state, NoLimits(), lambda: True, longest_request=60)


@pytest.fixture
def decisions_on(holds_on: Callable[[State], HoldService]) -> Callable[[State, str, bytes], DecisionService]:
    """Makes decisions on a state, with every service at an address."""

    def make(state: State, address: str, master_key: bytes) -> DecisionService:
        return DecisionService(
            state,
            LeaseService(state, GenerousCredits(state)),
            NoLimits(),
            holds_on(state),
            NoNews(),
            {route.service: address for route in ROUTES},
            master_key,
        )

    return make
