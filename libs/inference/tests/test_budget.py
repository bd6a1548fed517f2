"""How many retries a model may cost, and how many requests a deployment may hold."""

from dozen_inference.budget import RetryBudget, RetryBudgets
from dozen_inference.bulkheads import Bulkhead


def test_a_tenth_of_the_requests_may_be_tried_again() -> None:
    budget = RetryBudget()
    spent = 0
    for _ in range(1000):
        budget.earn()
        spent += budget.spend()
    assert 100 <= spent <= 110


def test_a_long_peace_saves_up_no_more_than_ten() -> None:
    budget = RetryBudget()
    for _ in range(1000):
        budget.earn()
    assert [budget.spend() for _ in range(11)] == [True] * 10 + [False]


def test_each_model_has_its_own() -> None:
    budgets = RetryBudgets()
    while budgets["a"].spend():
        pass
    assert not budgets["a"].spend()
    assert budgets["b"].spend()


def test_a_bulkhead_has_so_many_places() -> None:
    bulkhead = Bulkhead(2)
    assert [bulkhead.enter() for _ in range(3)] == [True, True, False]
    bulkhead.leave()
    assert bulkhead.enter()
    bulkhead.most = 1  # the catalogue has changed
    bulkhead.leave()
    assert not bulkhead.enter()
    assert bulkhead.taken == 1
