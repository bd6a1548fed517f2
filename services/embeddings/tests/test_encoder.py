"""The real embedding model."""

from array import array
from math import sqrt

import pytest

from dozen_embeddings.domain import DIMENSIONS
from dozen_embeddings.encoder import MiniLMEncoder


@pytest.fixture(scope="module")
def encoder() -> MiniLMEncoder:
    return MiniLMEncoder(threads=1)


def embed(encoder: MiniLMEncoder, *texts: str) -> list["array[float]"]:
    return [array("f", vector) for vector in encoder.encode(encoder.tokenize(texts))]


def cosine(left: "array[float]", right: "array[float]") -> float:
    return sum(x * y for x, y in zip(left, right, strict=True))


def test_related_sentences_are_near_and_others_far(encoder: MiniLMEncoder) -> None:
    password, login, cat, kitten = embed(
        encoder,
        "How do I reset my password?",
        "I forgot my login credentials",
        "The cat sits on the windowsill",
        "A kitten is resting by the window",
    )
    assert cosine(password, login) > 0.5
    assert cosine(cat, kitten) > 0.5
    assert abs(cosine(password, kitten)) < 0.2
    assert abs(cosine(login, cat)) < 0.2


def test_vectors_have_unit_length_and_384_dimensions(encoder: MiniLMEncoder) -> None:
    (vector,) = embed(encoder, "Hello, world!")
    assert len(vector) == DIMENSIONS
    assert sqrt(cosine(vector, vector)) == pytest.approx(1, abs=1e-5)


def test_the_company_of_other_texts_does_not_change_a_vector(encoder: MiniLMEncoder) -> None:
    alone, together = embed(encoder, "short")[0], embed(encoder, "short", "a much longer text than that")[0]
    assert cosine(alone, together) > 0.99


def test_tokens_are_counted_with_both_marks(encoder: MiniLMEncoder) -> None:
    assert [len(tokens) for tokens in encoder.tokenize(["hello world", "a " * 400])] == [4, 402]
