"""What the tests of the admin service share."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from dozen_admin.domain.usage import Charge


class Clock:
    """A clock that is set by hand."""

    def __init__(self, now: datetime) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now

    def advance(self, **by: float) -> None:
        self.now += timedelta(**by)


@pytest.fixture
def clock() -> Clock:
    """A clock that stands at noon."""
    return Clock(datetime(2026, 5, 4, 12, tzinfo=UTC))


@pytest.fixture
def charge(clock: Clock) -> Callable[..., Charge]:
    """Makes charges of requests that finish at the clock's time."""

    def make(request_id: str, account: str = "acme", model: str = "smol", **amounts: int) -> Charge:
        nano_credits = amounts.pop("nano_credits", 100)
        return Charge(
            request_id=request_id,
            account=account,
            key="key1",
            model=model,
            deployment="smol-chat",
            operation="POST /v1/chat/completions",
            quantities=amounts,
            nano_credits=nano_credits,
            estimated=False,
            finished_at=clock(),
        )

    return make
