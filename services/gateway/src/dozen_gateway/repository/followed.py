"""Tables that every replica follows in memory."""

import json
from collections.abc import Sequence

from dozen_chassis.postgres import Repository

CHANNEL = "gateway_state"
"""Told of each change: `{"accounts": ["acme"]}` says that these have to be read anew."""

_NOTIFIED_IDS = 100  # a notification has at most 8000 bytes


class FollowedRepository(Repository):
    """Base of the repositories whose changes are told to every replica."""

    async def tell_replicas(self, kind: str, ids: Sequence[str]) -> None:
        """Tell that these have changed, once this transaction has committed."""
        for start in range(0, len(ids), _NOTIFIED_IDS):
            await self.notify(CHANNEL, json.dumps({kind: ids[start : start + _NOTIFIED_IDS]}))
