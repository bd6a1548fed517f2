"""Texts as vectors."""

from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from typing import Protocol

from dozen_chassis.admission import Admission
from dozen_embeddings.domain import MAX_INPUTS, MAX_TOKENS, Embedding, batches, content_key
from dozen_embeddings.errors import InvalidInput, TextTooLong, TooManyTokens
from dozen_inference.hold import most_units
from dozen_inference.local import LocalModel
from dozen_inference.settlement import Used
from dozen_inference.usage import usage_record

# A step of 512 tokens takes about 0.1 s on one core; larger ones are no faster and take memory.
_STEP_TOKENS = 512
_EVICTION_BATCH = 1000


class Encoder(Protocol):
    """The model; its methods block."""

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Give the token ids of each text."""
        ...

    def encode(self, batch: Sequence[Sequence[int]]) -> list[bytes]:
        """Give the vector of each list of token ids."""
        ...


class Vectors(Protocol):
    """The vectors that are remembered, by content key."""

    async def find(self, keys: Collection[bytes]) -> dict[bytes, Embedding]:
        """Give those vectors that are remembered."""
        ...

    async def remember(self, embeddings: Mapping[bytes, Embedding]) -> None:
        """Keep vectors."""
        ...

    async def forget_unused(self, unused: timedelta, limit: int) -> int:
        """Drop vectors that were not used for so long; return how many."""
        ...

    async def forget_excess(self, keep: int, limit: int) -> int:
        """Drop the longest unused of more than `keep` vectors; return how many."""
        ...


class UsageLog(Protocol):
    """Where usage is reported."""

    async def put(self, entry: Used) -> None:
        """Make usage durable."""
        ...


class EmbeddingsService:
    """Turns texts into vectors."""

    def __init__(
        self, model: LocalModel[Encoder], vectors: Vectors, usage: UsageLog, *, max_request_tokens: int
    ) -> None:
        self._model = model
        self._vectors = vectors
        self._usage = usage
        self._max_request_tokens = max_request_tokens

    async def embed(self, admission: Admission, texts: Sequence[str]) -> list[Embedding]:
        """Give the vector of each text, in their order; a remembered one costs what a computed one does."""
        if not 0 < len(texts) <= MAX_INPUTS or not all(texts):
            raise InvalidInput(param="input")
        held = most_units(admission)
        most = self._max_request_tokens if held is None else min(held, self._max_request_tokens)
        keys = [content_key(self._model.name, admission.account, text) for text in texts]
        known = await self._vectors.find(set(keys))
        missing = {key: position for position, key in enumerate(keys) if key not in known}
        if missing:
            computed = await self._compute({position: texts[position] for position in missing.values()}, most)
            fresh = {key: computed[position] for key, position in missing.items()}
            await self._vectors.remember(fresh)
            known |= fresh
        embeddings = [known[key] for key in keys]
        tokens = sum(embedding.tokens for embedding in embeddings)
        _check_total(tokens, most)
        await self._usage.put(Used(usage_record(admission, {"input_tokens": tokens})))
        return embeddings

    async def forget(self, *, unused: timedelta, keep: int) -> None:
        """Drop vectors that are unused for so long, and the longest unused of more than `keep`."""
        while await self._vectors.forget_unused(unused, _EVICTION_BATCH):
            pass
        while await self._vectors.forget_excess(keep, _EVICTION_BATCH):
            pass

    async def _compute(self, texts: Mapping[int, str], most: int) -> dict[int, Embedding]:
        """Give embeddings by the positions of their texts; refuse texts with more tokens than `most`."""
        with self._model.admit() as encoder:
            tokenized = await self._model.run(encoder.tokenize, list(texts.values()))
            tokens = dict(zip(texts, tokenized, strict=True))
            _check_each(tokens)
            _check_total(sum(map(len, tokenized)), most)
            positions = list(tokens)
            computed = {}
            for batch in batches([len(ids) for ids in tokenized], _STEP_TOKENS):
                vectors = await self._model.run(encoder.encode, [tokenized[index] for index in batch])
                for index, vector in zip(batch, vectors, strict=True):
                    computed[positions[index]] = Embedding(vector, len(tokenized[index]))
            return computed


def _check_each(tokens: Mapping[int, Sequence[int]]) -> None:
    for position, ids in sorted(tokens.items()):
        if len(ids) > MAX_TOKENS:
            raise TextTooLong(
                f"This model's maximum context length is {MAX_TOKENS} tokens, however input {position}"
                f" has {len(ids)} tokens. Please reduce your input.",
                param="input",
            )


def _check_total(tokens: int, most: int) -> None:
    if tokens > most:
        raise TooManyTokens(f"The inputs have {tokens} tokens; this request may have {most}.", param="input")
