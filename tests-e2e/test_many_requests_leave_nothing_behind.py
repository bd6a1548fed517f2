"""After thousands of requests, some of them left or bad, memory and open files are about what they were."""

import shutil
import sys

import pytest

from bench.figures import Effort
from bench.measures import soak

REQUESTS = 3000
"""The long version is `make bench`."""
MOST_GROWTH_PERCENT = 10
"""Of memory; so few requests do not yet fill what is kept for the next ones."""
GROWTH = ".memory_growth_percent"


@pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("cc") is None, reason="needs Linux and a C compiler"
)
def test_memory_and_files_are_what_they_were() -> None:
    figures = soak.measure(Effort(requests=REQUESTS))
    growth = {figure.name: figure.value for figure in figures if figure.name.endswith(GROWTH)}
    assert growth.keys() >= {f"soak.gateway{GROWTH}", f"soak.chat{GROWTH}"}
    assert max(growth.values()) <= MOST_GROWTH_PERCENT, growth
    assert [figure for figure in figures if not figure.is_met and figure.name not in growth] == []
