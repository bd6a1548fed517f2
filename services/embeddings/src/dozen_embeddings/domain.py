"""Vectors, and the rules for computing them."""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
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


MAX_MODERATED_INPUTS = 32
MAX_MODERATED_CHARACTERS = 60_000
"""Of all texts of a request together: some ten seconds of work for one core."""
FLAGGED_FROM = 0.4
"""Cosine to an example; below it two sentences have little in common."""

CATEGORIES = (
    "harassment", "harassment/threatening", "hate", "hate/threatening", "illicit", "illicit/violent",
    "self-harm", "self-harm/intent", "self-harm/instructions", "sexual", "sexual/minors", "violence",
    "violence/graphic",
)  # fmt: skip
"""Those of OpenAI's moderations."""

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\s*\n\s*")
_MOST_WORDS = 60


@dataclass(frozen=True, slots=True)
class Moderation:
    """What was found in a text: how near it comes to each category, and in which of them it is."""

    scores: Mapping[str, float]
    flagged: frozenset[str] = frozenset()


def sentences(text: str) -> list[str]:
    """Cut a text into sentences, and those into pieces that the model reads whole."""
    pieces = []
    for sentence in _SENTENCE_END.split(text):
        words = sentence.split()
        pieces += [" ".join(words[at : at + _MOST_WORDS]) for at in range(0, len(words), _MOST_WORDS)]
    return pieces


def moderate(scored: Sequence[tuple[Mapping[str, float], float]]) -> Moderation:
    """Judge a text by its sentences: each by its scores in the categories, and in none.

    A sentence is in its nearest category, where that is near enough and nearer than anything harmless.
    """
    highest = dict.fromkeys(CATEGORIES, 0.0)
    flagged = set()
    for scores, harmless in scored:
        for category, score in scores.items():
            highest[category] = max(score, highest[category])
        nearest = max(scores, key=scores.__getitem__)
        if scores[nearest] >= FLAGGED_FROM and scores[nearest] > harmless:
            flagged.add(nearest)
    return Moderation(highest, frozenset(flagged))
