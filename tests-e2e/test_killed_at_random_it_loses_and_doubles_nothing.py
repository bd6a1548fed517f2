"""Parts of a platform are killed while it serves: every answer is charged once, and nobody overspends."""

import os

import pytest

from chaos.run import Plan, run
from chaos.verdict import judge

PLAN = Plan(kills=6, seed=7, pause=2.0, lease=5.0, longest_request=15.0)
"""The long version is `make chaos`."""


def test_the_books_balance_after_every_kill() -> None:
    if "DOZEN_URL" in os.environ:
        pytest.skip("this journey kills a platform of its own")
    progress: list[str] = []
    verdict = judge(run(PLAN, progress.append))
    assert verdict.acknowledged > 0, progress
    assert list(verdict.details()) == [], progress
