"""Requests that are not valid, as errors for the client."""

from collections.abc import Iterator
from contextlib import contextmanager

from dozen_chassis.errors import InvalidRequest
from dozen_chat.domain.invalid import Invalid


@contextmanager
def validly() -> Iterator[None]:
    """Raise `InvalidRequest` where the rules of the domain say that something is not valid."""
    try:
        yield
    except Invalid as invalid:
        raise InvalidRequest(invalid.message, param=invalid.param) from invalid
