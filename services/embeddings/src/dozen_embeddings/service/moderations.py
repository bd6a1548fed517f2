"""Whether texts are harmful."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from prometheus_client import Counter

from dozen_embeddings.domain import (
    MAX_MODERATED_CHARACTERS,
    MAX_MODERATED_INPUTS,
    Moderation,
    moderate,
    sentences,
)
from dozen_embeddings.errors import InvalidModerationInput
from dozen_inference.local import LocalModel

MODERATIONS = Counter("dozen_embeddings_moderated_texts", "Texts that were moderated.", ["outcome"])


class Moderator(Protocol):
    """The model; its methods block."""

    def score(self, sentences: Sequence[str]) -> Iterator[list[tuple[Mapping[str, float], float]]]:
        """Give, for some sentences at a time, the score in each category and in none."""
        ...


class ModerationService:
    """Tells which texts are harmful, and how."""

    def __init__(self, model: LocalModel[Moderator]) -> None:
        self._model = model

    async def moderate(self, texts: Sequence[str]) -> list[Moderation]:
        """Give what is found in each text, in their order."""
        if not 0 < len(texts) <= MAX_MODERATED_INPUTS or sum(map(len, texts)) > MAX_MODERATED_CHARACTERS:
            raise InvalidModerationInput(param="input")
        found = []
        with self._model.admit() as moderator:
            for text in texts:
                scored: list[tuple[Mapping[str, float], float]] = []
                async for part in self._model.iterate(moderator.score(sentences(text))):
                    scored += part
                found.append(moderate(scored))
        for moderation in found:
            MODERATIONS.labels("flagged" if moderation.flagged else "passed").inc()
        return found
