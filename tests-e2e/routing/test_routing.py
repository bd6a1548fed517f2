"""Our way to choose keeps prefixes together without a price in the tail, and an outage is not made worse."""

from statistics import median

import pytest

from routing.gateways import POLICIES
from routing.outage import OUTAGE, Outage
from routing.plan import Fault, Plan
from routing.run import Outcome, simulate

SEEDS = range(3)


def outcomes(name: str, fault: Fault = Fault.NONE) -> list[Outcome]:
    return [simulate(Plan(seed, fault), POLICIES[name]) for seed in SEEDS]


def hit_rate(found: list[Outcome]) -> float:
    return median(one.hit_rate for one in found)


def p99(found: list[Outcome]) -> float:
    return median(one.p99 for one in found)


@pytest.mark.parametrize("fault", Fault)
def test_more_of_each_prompt_is_cached_and_the_tail_is_shorter(fault: Fault) -> None:
    ours, in_turn, least = (outcomes(name, fault) for name in ("ours", "round robin", "least load"))
    assert hit_rate(ours) > hit_rate(in_turn) + 0.15
    assert hit_rate(ours) > hit_rate(least) + 0.15
    assert p99(ours) < 0.95 * p99(in_turn)
    assert p99(ours) < p99(least)


def test_a_hot_prefix_spills_over_to_others() -> None:
    ours, unbounded = outcomes("ours"), outcomes("affinity, no bound")
    assert {one.servers_of_hottest for one in unbounded} == {1}
    assert all(1 < one.servers_of_hottest < Plan(0).servers for one in ours)
    assert max(one.spread for one in ours) < 1.3 < 1.6 < min(one.spread for one in unbounded)
    assert hit_rate(ours) > hit_rate(unbounded) - 0.1
    assert p99(ours) < p99(unbounded) / 10


def test_without_a_prefix_stale_news_makes_no_herd() -> None:
    assert p99(outcomes("two choices")) < p99(outcomes("least load"))


def test_a_seed_is_the_same_run_every_time() -> None:
    assert simulate(Plan(7, seconds=90), POLICIES["ours"]) == simulate(Plan(7, seconds=90), POLICIES["ours"])


@pytest.mark.parametrize("seed", SEEDS)
def test_in_a_full_outage_retries_add_no_load_and_end_soon_after_it(seed: int) -> None:
    outage = Outage(seed).play()
    assert outage.asked > 2 * outage.calls  # clients do try again
    assert outage.attempts < 0.2 * outage.calls  # without any retry it would be once
    assert outage.recovered < 30
    assert outage.peak < 0.2 * outage.calls / (OUTAGE[1] - OUTAGE[0]) * 30
