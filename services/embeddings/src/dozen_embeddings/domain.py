"""Vectors, and the rules for computing them."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

DIMENSIONS = 384
MAX_INPUTS = 2048
MAX_TOKENS = 256
"""Per text: what the model has learnt to read."""


@dataclass(frozen=True, slots=True)
class Embedding:
    """A text as a vector of unit length, in little-endian 32-bit floats, and the tokens that it was."""

    vector: bytes
    tokens: int


def content_key(model: str, account: str, text: str) -> bytes:
    """Give the key that a text's vector is remembered by.

    The account is part of it, so that nobody can tell from the response time whether another account's
    text has been seen.
    """
    return hashlib.sha256("\0".join((model, account, text)).encode("utf-8", "surrogatepass")).digest()


def batches(lengths: Sequence[int], most: int) -> Iterator[list[int]]:
    """Group the positions of texts by their lengths in tokens: at most `most` tokens with the padding."""
    batch: list[int] = []
    for position in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and lengths[position] * (len(batch) + 1) > most:
            yield batch
            batch = []
        batch.append(position)
    if batch:
        yield batch
