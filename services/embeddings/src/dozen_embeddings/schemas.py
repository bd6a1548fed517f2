"""Bodies of the embeddings API, as OpenAI has them."""

import base64
from array import array
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec
from pydantic import BaseModel, BeforeValidator
from pydantic_core import PydanticCustomError

from dozen_embeddings.domain import CATEGORIES, Embedding, Moderation


def _texts(value: Any) -> list[str]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list):
        raise PydanticCustomError("input", "The input must be a text or a list of texts")
    if any(isinstance(text, int | list) for text in texts):
        raise PydanticCustomError(
            "input",
            "Token ids are not accepted, because they belong to another model's tokenizer; send texts",
        )
    return texts


class EmbeddingsRequest(BaseModel):
    """Body of `POST /v1/embeddings`."""

    model: str
    input: Annotated[list[str], BeforeValidator(_texts)]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None


def _moderated_texts(value: Any) -> list[str]:
    parts = value if isinstance(value, list) else [value]
    return [_text_of(part) for part in parts]


def _text_of(part: Any) -> str:
    if isinstance(part, dict) and part.get("type") == "text":
        part = part.get("text")
    if not isinstance(part, str):
        raise PydanticCustomError("input", "The input must be texts; this model reads no images")
    return part


class ModerationsRequest(BaseModel):
    """Body of `POST /v1/moderations`; whatever model it names, ours answers."""

    input: Annotated[list[str], BeforeValidator(_moderated_texts)]
    model: str | None = None


class ModerationResult(BaseModel):
    """What was found in one text."""

    flagged: bool
    categories: dict[str, bool]
    category_scores: dict[str, float]
    category_applied_input_types: dict[str, list[str]]


class ModerationList(BaseModel):
    """Answer of `POST /v1/moderations`."""

    id: str
    model: str = "minilm-moderation"
    results: list[ModerationResult]

    @classmethod
    def of(cls, request_id: str, moderations: Sequence[Moderation]) -> "ModerationList":
        """Write what was found in each text."""
        return cls(
            id=f"modr-{request_id.removeprefix('req_')}",
            results=[
                ModerationResult(
                    flagged=bool(moderation.flagged),
                    categories={name: name in moderation.flagged for name in CATEGORIES},
                    category_scores={name: round(moderation.scores[name], 4) for name in CATEGORIES},
                    category_applied_input_types={name: ["text"] for name in CATEGORIES},
                )
                for moderation in moderations
            ],
        )


def embeddings_response(model: str, embeddings: Sequence[Embedding], encoding_format: str) -> bytes:
    """Write the answer of `POST /v1/embeddings`."""
    form = _base64 if encoding_format == "base64" else _floats
    tokens = sum(embedding.tokens for embedding in embeddings)
    return msgspec.json.encode(
        {
            "object": "list",
            "data": [
                {"object": "embedding", "index": index, "embedding": form(embedding.vector)}
                for index, embedding in enumerate(embeddings)
            ],
            "model": model,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }
    )


def _floats(vector: bytes) -> list[float]:
    return array("f", vector).tolist()


def _base64(vector: bytes) -> str:
    return base64.b64encode(vector).decode()
