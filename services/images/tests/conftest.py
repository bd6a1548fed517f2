"""What the tests of the images service share."""

import pytest

from dozen_chassis.admission import Admission


@pytest.fixture
def admission() -> Admission:
    """An admitted request."""
    facts = {"model": "pp-ocrv6", "deployments": "ppocr-images", "price": "price-1"}
    return Admission("acme", "key1", "req_1", "POST /v1/images/analyses", facts)
