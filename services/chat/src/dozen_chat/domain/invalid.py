"""What is wrong with a request, and reading JSON so that this is known."""

import re
from typing import Any, TypeVar

import msgspec

Read = TypeVar("Read")

MAX_PAIRS = 16
MAX_KEY = 64
MAX_VALUE = 512

_PLACE = re.compile(r" - at `\$\.?(.+)`$")


class Invalid(Exception):
    """Something that cannot be done as it is asked for, and the parameter at fault."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param


def decode(text: bytes, kind: type[Read], param: str | None = None) -> Read:
    """Read JSON; `param` is the parameter whose value it is, None where it is the whole body."""
    try:
        return msgspec.json.decode(text, type=kind)
    except msgspec.ValidationError as error:
        raise _invalid(error, param) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Invalid(f"The request body is not valid JSON: {error}.", param) from error


def convert(value: Any, kind: Any, param: str) -> Any:
    """Read what was JSON before."""
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise _invalid(error, param) from error


def check_metadata(metadata: dict[str, str] | None) -> dict[str, str]:
    """Give metadata that is no larger than it may be."""
    metadata = metadata or {}
    if len(metadata) > MAX_PAIRS:
        raise Invalid(f"'metadata' may have at most {MAX_PAIRS} pairs.", "metadata")
    for key, value in metadata.items():
        if len(key) > MAX_KEY or len(value) > MAX_VALUE:
            raise Invalid(
                f"Keys of 'metadata' have at most {MAX_KEY} characters, and values {MAX_VALUE}.", "metadata"
            )
        if "\0" in key or "\0" in value:
            raise Invalid("'metadata' may not have null characters.", "metadata")
    return metadata


def _invalid(error: msgspec.ValidationError, param: str | None) -> Invalid:
    text = str(error)
    place = _PLACE.search(text)
    if place is None:
        return Invalid(f"{text}.", param)
    where = place[1] if param is None else f"{param}{'' if place[1].startswith('[') else '.'}{place[1]}"
    return Invalid(f"{text[: place.start()]} (at {where}).", where)
