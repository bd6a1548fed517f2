"""Buckets: how much is drawn of them, and what comes back."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dozen_gateway.domain import gcra
from dozen_gateway.domain.gcra import MINUTE, Bucket, draw, give_back, lack, room

SECOND = 1_000_000_000
NOW = 1_800_000_000 * SECOND

limits = st.one_of(st.integers(1, 200), st.sampled_from([60, 3500, 10**6, 7 * 10**9, 10**12]))


def test_a_bucket_holds_a_minutes_worth_and_refills_steadily() -> None:
    granted, bucket, retry_after = draw(Bucket(), NOW, 60, 1, 100)
    assert (granted, retry_after) == (60, 0)
    assert draw(bucket, NOW, 60, 1, 1) == (0, bucket, SECOND)
    assert draw(bucket, NOW + SECOND - 1, 60, 1, 1) == (0, bucket, 1)
    assert draw(bucket, NOW + SECOND, 60, 1, 1).granted == 1
    assert draw(bucket, NOW + 10 * SECOND, 60, 1, 60).granted == 10
    assert draw(bucket, NOW + 3600 * SECOND, 60, 1, 1000).granted == 60


def test_all_or_nothing_of_what_is_needed_is_drawn() -> None:
    _, bucket, _ = draw(Bucket(), NOW, 60, 50, 50)
    assert draw(bucket, NOW, 60, 11, 30) == (0, bucket, SECOND)
    assert draw(bucket, NOW, 60, 10, 30).granted == 10
    assert draw(bucket, NOW, 60, 5, 7).granted == 7


def test_nothing_is_needed_to_draw_ahead() -> None:
    _, empty, _ = draw(Bucket(), NOW, 60, 60, 60)
    assert draw(empty, NOW, 60, 0, 5) == (0, empty, 0)
    assert draw(Bucket(), NOW, 60, 0, 5).granted == 5


def test_what_is_more_than_a_bucket_holds_never_fits() -> None:
    assert draw(Bucket(), NOW, 60, 61, 61) == (0, Bucket(), None)
    assert draw(Bucket(), NOW, 60, 60, 60).granted == 60


def test_another_limit_finds_the_same_part_of_the_bucket_used() -> None:
    _, bucket, _ = draw(Bucket(), NOW, 60, 30, 30)
    assert room(bucket, NOW, 1000) == 500


def test_a_clock_that_is_set_back_costs_a_minute() -> None:
    _, bucket, _ = draw(Bucket(), NOW, 60, 1, 1)
    earlier = NOW - 3600 * SECOND
    assert draw(bucket, earlier, 60, 1, 1).retry_after == SECOND
    assert draw(Bucket(earlier + MINUTE), earlier + MINUTE, 60, 1, 60).granted == 60


def test_permits_that_come_back_at_once_can_be_drawn_again() -> None:
    _, bucket, _ = draw(Bucket(), NOW, 60, 60, 60)
    bucket = give_back(bucket, NOW, 60, 45, NOW)
    assert room(bucket, NOW, 60) == 45


def test_permits_that_time_has_replaced_do_not_come_back_a_second_time() -> None:
    _, bucket, _ = draw(Bucket(), NOW, 60, 60, 60)
    later = NOW + 2 * MINUTE
    _, bucket, _ = draw(bucket, later, 60, 60, 60)
    assert room(give_back(bucket, later, 60, 60, NOW), later, 60) == 0


def test_two_draws_share_what_time_has_replaced() -> None:
    bucket, half = Bucket(), NOW + MINUTE // 2
    for at in (NOW, NOW, half):
        bucket = draw(bucket, at, 60, 30, 30).bucket
    assert lack(bucket, half) == MINUTE
    for _ in range(2):
        bucket = give_back(bucket, half, 60, 30, NOW)
    # Without both there is only the draw of half a minute later.
    assert lack(bucket, half) == MINUTE // 2


@given(
    limit=limits, draws=st.lists(st.tuples(st.integers(0, 3 * SECOND), st.integers(1, 10**12)), max_size=40)
)
@settings(max_examples=300, deadline=None)
def test_a_refused_draw_fits_after_the_time_it_was_told_and_not_before(
    limit: int, draws: list[tuple[int, int]]
) -> None:
    bucket, now = Bucket(), NOW
    for wait, amount in draws:
        now += wait
        amount = 1 + amount % limit
        granted, bucket, retry_after = draw(bucket, now, limit, amount, amount)
        assert granted == (0 if retry_after else amount)
        if retry_after:
            assert draw(bucket, now + retry_after, limit, amount, amount).granted == amount
            assert not draw(bucket, now + retry_after - 1, limit, amount, amount).granted


@dataclass
class History:
    """What was drawn, less what came back, and the bucket that this leads to by definition."""

    limit: int
    draws: list[list[int]] = field(default_factory=list)
    """When, how much, and how much of that has come back."""

    def bucket(self) -> Bucket:
        bucket = Bucket()
        for at, drawn, back in self.draws:
            cost = gcra._duration(drawn, self.limit) - back * MINUTE // self.limit
            bucket = Bucket(max(bucket.tat, at) + cost)
        return bucket


steps = st.lists(
    st.tuples(st.integers(0, 20 * SECOND), st.integers(0, 10**6), st.none() | st.integers(0, 30)), max_size=60
)


def played(limit: int, moves: list[tuple[int, int, int | None]]) -> tuple[Bucket, History, int]:
    """Draw and give back at random."""
    bucket, history, now = Bucket(), History(limit), NOW
    for wait, amount, returned in moves:
        now += wait
        if returned is None:
            amount = 1 + amount % limit
            granted, bucket, _ = draw(bucket, now, limit, amount, amount)
            if granted:
                history.draws.append([now, granted, 0])
        elif returned < len(history.draws):
            drawn = history.draws[returned]
            if drawn[2] == 0 and (back := amount % (drawn[1] + 1)):
                bucket = give_back(bucket, now, limit, back, drawn[0])
                drawn[2] = back
    return bucket, history, now


@given(limit=limits, moves=steps)
@settings(max_examples=500, deadline=None)
def test_a_bucket_is_never_fuller_than_if_what_came_back_had_not_been_drawn(
    limit: int, moves: list[tuple[int, int, int | None]]
) -> None:
    bucket, history, now = played(limit, moves)
    assert lack(bucket, now) >= lack(history.bucket(), now)


@given(limit=limits, moves=steps)
@settings(max_examples=300, deadline=None)
def test_with_all_lows_kept_it_is_as_full(limit: int, moves: list[tuple[int, int, int | None]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gcra, "MOST_LOWS", 1000)
        bucket, history, now = played(limit, moves)
    assert lack(bucket, now) == lack(history.bucket(), now)


@given(moves=steps)
@settings(max_examples=300, deadline=None)
def test_few_lows_are_kept_and_ever_higher_ones(moves: list[tuple[int, int, int | None]]) -> None:
    bucket, _, _ = played(60, moves)
    assert len(bucket.lows) <= gcra.MOST_LOWS
    assert list(bucket.lows) == sorted(set(bucket.lows))
    assert [low.lack for low in bucket.lows] == sorted({low.lack for low in bucket.lows})
