"""Keys that are shown before this replica has heard of them."""

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

from prometheus_client import Counter

from dozen_gateway.domain.keys import ApiKey, read_key
from dozen_gateway.domain.state import Snapshot, State

LOOKUPS = Counter("dozen_gateway_key_lookups", "Keys looked up that were not known here.", ["outcome"])

MOST_A_SECOND = 20
"""So that whoever guesses keys keeps no database busy."""
PATIENCE_SECONDS = 0.5


class LookupStore(Protocol):
    """Where keys are kept."""

    async def look_up_key(self, account: str, key_id: str) -> ApiKey | None:
        """Give a key of an account; None too where nobody can tell."""
        ...


class KeyLookup:
    """Reads keys that another replica has made or rotated a moment ago, ahead of the notification."""

    def __init__(
        self, store: LookupStore, state: State, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._store = store
        self._state = state
        self._monotonic = monotonic
        self._second = 0
        self._looked_up: set[str] = set()
        """Within this second."""

    async def look_up(self, api_key: str) -> bool:
        """Look for a key that was refused; True where there is news of it, and it is to be decided again."""
        parts = read_key(api_key)
        if parts is None or not self._may_look_up(parts.id):
            return False
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                found = await self._store.look_up_key(parts.account, parts.id)
        except TimeoutError:
            found = None
        known = self._state.keys.get(parts.id)
        is_news = found is not None and (known is None or known.version < found.version)
        LOOKUPS.labels("found" if is_news else "nothing").inc()
        if found is not None and is_news:
            self._state.learn(Snapshot(keys={found.id: found}))
        return is_news

    def _may_look_up(self, key_id: str) -> bool:
        second = int(self._monotonic())
        if second != self._second:
            self._second = second
            self._looked_up.clear()
        if key_id in self._looked_up or len(self._looked_up) >= MOST_A_SECOND:
            return False
        self._looked_up.add(key_id)
        return True
