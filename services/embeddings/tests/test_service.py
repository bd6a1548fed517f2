"""Use cases of the embeddings service, on a model that counts."""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta

import pytest

from dozen.credits.v1.credits_pb2 import UsageRecord
from dozen_chassis.admission import Admission
from dozen_embeddings.domain import Embedding
from dozen_embeddings.errors import InvalidInput, TextTooLong, TooManyTokens
from dozen_embeddings.service.embeddings import EmbeddingsService, Encoder
from dozen_inference.local import LocalModel, ModelOverloaded
from dozen_inference.settlement import Used


@dataclass
class FakeEncoder:
    """A word is a token; a vector is the first letter of its text."""

    encoded: int = 0

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        return [[ord(word[0]) for word in text.split()] for text in texts]

    def encode(self, batch: Sequence[Sequence[int]]) -> list[bytes]:
        self.encoded += len(batch)
        return [bytes(tokens[:1]) for tokens in batch]


@dataclass
class FakeVectors:
    """Vectors in memory."""

    kept: dict[bytes, Embedding] = field(default_factory=dict)

    async def find(self, keys: Collection[bytes]) -> dict[bytes, Embedding]:
        return {key: self.kept[key] for key in keys if key in self.kept}

    async def remember(self, embeddings: Mapping[bytes, Embedding]) -> None:
        self.kept |= embeddings

    async def forget_unused(self, unused: timedelta, limit: int) -> int:
        return 0

    async def forget_excess(self, keep: int, limit: int) -> int:
        excess = list(self.kept)[: max(0, len(self.kept) - keep)][:limit]
        for key in excess:
            del self.kept[key]
        return len(excess)


@dataclass
class FakeUsage:
    """Usage in memory."""

    records: list[UsageRecord] = field(default_factory=list)

    async def put(self, entry: Used) -> None:
        self.records.append(entry.usage)


@dataclass
class Stage:
    """The service with everything around it."""

    encoder: FakeEncoder
    model: LocalModel[Encoder]
    vectors: FakeVectors
    usage: FakeUsage
    service: EmbeddingsService


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    encoder, vectors, usage = FakeEncoder(), FakeVectors(), FakeUsage()
    model: LocalModel[Encoder] = LocalModel("fake", lambda: encoder, packages=[], most_requests=1)
    await model.load()
    service = EmbeddingsService(model, vectors, usage, max_request_tokens=300)
    yield Stage(encoder, model, vectors, usage, service)
    model.close()


async def test_vectors_come_in_the_order_of_their_texts(stage: Stage, admission: Admission) -> None:
    found = await stage.service.embed(admission, ["c c c", "a", "b b"])
    assert [embedding.vector for embedding in found] == [b"c", b"a", b"b"]
    assert [embedding.tokens for embedding in found] == [3, 1, 2]


async def test_usage_counts_every_text_of_the_request(stage: Stage, admission: Admission) -> None:
    await stage.service.embed(admission, ["a b", "a b", "c"])
    (record,) = stage.usage.records
    assert (record.request_id, record.account_id, record.price_id) == ("req_1", "acme", "price-1")
    assert dict(record.quantities) == {"input_tokens": 5}
    assert record.finished_at.seconds > 0


async def test_a_text_is_computed_once_and_charged_every_time(stage: Stage, admission: Admission) -> None:
    await stage.service.embed(admission, ["a b", "a b"])
    await stage.service.embed(admission, ["a b"])
    assert stage.encoder.encoded == 1
    assert [dict(record.quantities) for record in stage.usage.records] == [
        {"input_tokens": 4},
        {"input_tokens": 2},
    ]


async def test_another_account_does_not_see_what_is_remembered(stage: Stage, admission: Admission) -> None:
    await stage.service.embed(admission, ["a"])
    await stage.service.embed(Admission("other", "key2", "req_2", admission.operation), ["a"])
    assert stage.encoder.encoded == 2


@pytest.mark.parametrize("texts", [[], [""], ["a", ""], ["a"] * 2049])
async def test_input_that_is_empty_or_too_much_is_refused(
    stage: Stage, admission: Admission, texts: list[str]
) -> None:
    with pytest.raises(InvalidInput):
        await stage.service.embed(admission, texts)
    assert not stage.usage.records


async def test_a_text_beyond_the_context_is_refused_with_its_place(
    stage: Stage, admission: Admission
) -> None:
    with pytest.raises(TextTooLong, match="input 1 has 257 tokens"):
        await stage.service.embed(admission, ["a", "b " * 257])


async def test_too_many_tokens_in_one_request_are_refused(stage: Stage, admission: Admission) -> None:
    with pytest.raises(TooManyTokens):
        await stage.service.embed(admission, ["a " * 200, "b " * 200])


@pytest.mark.parametrize("remembered", [[], ["a b"]])
async def test_more_tokens_than_are_held_are_refused(
    stage: Stage, admission: Admission, remembered: list[str]
) -> None:
    if remembered:
        await stage.service.embed(admission, remembered)
    encoded, charged = stage.encoder.encoded, len(stage.usage.records)
    held = replace(admission, facts={**admission.facts, "max-units": "4"})
    with pytest.raises(TooManyTokens, match="have 5 tokens; this request may have 4") as refused:
        await stage.service.embed(held, ["a b", "c d e"])
    assert refused.value.http.status == 400
    if not remembered:
        assert stage.encoder.encoded == encoded  # it is refused before it is computed
    assert len(stage.usage.records) == charged
    await stage.service.embed(held, ["a b", "a b"])
    assert dict(stage.usage.records[-1].quantities) == {"input_tokens": 4}


async def test_a_full_queue_is_refused_but_what_is_remembered_is_served(
    stage: Stage, admission: Admission
) -> None:
    await stage.service.embed(admission, ["a"])
    with stage.model.admit():
        with pytest.raises(ModelOverloaded):
            await stage.service.embed(admission, ["b"])
        assert await stage.service.embed(admission, ["a"])


async def test_vectors_beyond_the_limit_are_forgotten(stage: Stage, admission: Admission) -> None:
    await stage.service.embed(admission, ["a", "b", "c"])
    await stage.service.forget(unused=timedelta(days=1), keep=1)
    assert len(stage.vectors.kept) == 1
