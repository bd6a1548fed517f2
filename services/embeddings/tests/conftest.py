"""What the tests of the embeddings service share."""

import pytest

from dozen_chassis.admission import Admission


@pytest.fixture
def admission() -> Admission:
    """An admitted request."""
    facts = {"model": "all-minilm-l6-v2", "deployments": "minilm-embeddings", "price": "price-1"}
    return Admission("acme", "key1", "req_1", "POST /v1/embeddings", facts)
