"""What the tests of the audio service share."""

import pytest

from dozen_chassis.admission import Admission


@pytest.fixture
def admission() -> Admission:
    """An admitted request."""
    facts = {"model": "whisper-tiny.en", "deployments": "whisper-audio", "price": "price-1"}
    return Admission("acme", "key1", "req_1", "POST /v1/audio/transcriptions", facts)
