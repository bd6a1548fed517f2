"""The moderation model: sentences compared with examples, by their embeddings."""

from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

_STEP_SENTENCES = 16


class Encoder(Protocol):
    """Turns sentences into unit vectors; its methods block."""

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Give the token ids of each text."""
        ...

    def encode(self, batch: Sequence[Sequence[int]]) -> list[bytes]:
        """Give the vector of each list of token ids."""
        ...


class Examples(msgspec.Struct):
    """Sentences that show what a category is, and such as are in none."""

    categories: dict[str, list[str]]
    harmless: list[str]


def read_examples() -> Examples:
    """Read the examples that come with the service."""
    return msgspec.json.decode((files("dozen_embeddings") / "moderation.json").read_bytes(), type=Examples)


class ExampleModerator:
    """Scores a sentence in each category by its nearest example there; its methods block."""

    def __init__(self, encoder: Encoder, examples: Examples, most_tokens: int) -> None:
        self._encoder = encoder
        self._examples = examples
        self._most_tokens = most_tokens
        self._vectors: dict[str, NDArray[np.float32]] = {}

    def score(self, sentences: Sequence[str]) -> Iterator[list[tuple[Mapping[str, float], float]]]:
        """Give, for some sentences at a time, the cosine to each category and to what is harmless."""
        if not self._vectors:  # at the first use, so that the service starts without waiting for it
            groups = self._examples.categories | {"": self._examples.harmless}
            self._vectors = {name: self._embed(texts) for name, texts in groups.items()}
        for start in range(0, len(sentences), _STEP_SENTENCES):
            vectors = self._embed(sentences[start : start + _STEP_SENTENCES])
            nearest = {name: (vectors @ known.T).max(axis=1) for name, known in self._vectors.items()}
            yield [
                (
                    {name: max(0.0, float(found[row])) for name, found in nearest.items() if name},
                    float(nearest[""][row]),
                )
                for row in range(len(vectors))
            ]

    def _embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        tokens = [ids[: self._most_tokens] for ids in self._encoder.tokenize(texts)]
        return np.stack([np.frombuffer(vector, "<f4") for vector in self._encoder.encode(tokens)])
