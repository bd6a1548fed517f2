"""The body of a completion request: read as far as we must, and else left as it is."""

from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from dozen_chassis.errors import InvalidRequest

MAX_MODEL_LENGTH = 256

# How many answers a prompt has: `best_of` is vLLM's and OpenAI's, `n_cmpl` is llama.cpp's name for `n`.
_CHOICES = ("n", "best_of", "n_cmpl")
# How long an answer may be. llama.cpp keeps to the first of these that a body has.
_LIMITS = ("n_predict", "max_completion_tokens", "max_tokens")
# Of them, by the name of the prompt, those that llama.cpp and vLLM both keep to.
_HEEDED = {"messages": ("max_completion_tokens", "max_tokens"), "prompt": ("max_tokens",)}


@dataclass(frozen=True, slots=True)
class CompletionRequest:
    """What to send upstream, and what we know of it."""

    body: bytes
    model: str
    stream: bool
    usage_asked: bool
    """The client wants the last event of the stream, which tells the usage."""
    prompt_tokens: int
    """A guess, for an answer that does not tell: four bytes are about a token."""
    most_output_tokens: int | None = None
    """Of all choices together; None where there is no limit."""


def prepare(
    body: bytes,
    prompt: Literal["messages", "prompt"],
    *,
    most_choices: int,
    most_tokens: int | None = None,
    may_stream: bool = True,
) -> CompletionRequest:
    """Read a request body whose prompt is in the field of that name.

    A body that asks for a stream comes back asking for its usage too, and one that would let an answer
    have more than `most_tokens` comes back with that limit; values that are not ours are kept byte for
    byte, and so is every other body. Unless it `may_stream`, the answer comes whole whatever the body
    says.
    """
    fields = _decode(body, dict[str, msgspec.Raw], "The request body", None)
    model = _field(fields, "model", str)
    if not model or len(model) > MAX_MODEL_LENGTH:
        raise InvalidRequest("You must provide a model parameter.", param="model")
    choices = _prompts(fields, prompt) * _choices(fields)
    if not 0 < choices <= most_choices:
        raise InvalidRequest(
            f"This request asks for {choices} choices; from 1 to {most_choices} are allowed here.", param="n"
        )
    stream = bool(_field(fields, "stream", bool))
    options = _field(fields, "stream_options", dict[str, Any]) or {}
    changed: dict[str, Any] = {} if most_tokens is None else _limits(fields, prompt, most_tokens)
    dropped: tuple[str, ...] = ()
    if stream and may_stream:
        changed["stream_options"] = {**options, "include_usage": True}
    elif stream:
        dropped = ("stream", "stream_options")
    if changed or dropped:
        kept = {name: value for name, value in fields.items() if name not in dropped}
        body = msgspec.json.encode({**kept, **changed})
    return CompletionRequest(
        body=body,
        model=model,
        stream=stream and may_stream,
        usage_asked=options.get("include_usage") is True,
        prompt_tokens=-(-len(memoryview(fields[prompt])) // 4),
        most_output_tokens=None if most_tokens is None else most_tokens * choices,
    )


def _limits(fields: dict[str, msgspec.Raw], prompt: str, most: int) -> dict[str, int]:
    """Give the fields with which no answer has more tokens than `most`; none where that is so already."""
    asked = {name: _field(fields, name, int) for name in _LIMITS}
    limits = {
        name: most  # below zero is llama.cpp's word for no limit
        for name, value in asked.items()
        if value is not None and not 0 <= value <= most
    }
    heeded = _HEEDED[prompt]
    if all(asked[name] is None for name in heeded):
        limits[next((name for name in heeded if name in fields), heeded[0])] = most
    return limits


def _choices(fields: dict[str, msgspec.Raw]) -> int:
    asked = [_field(fields, name, int) for name in _CHOICES]
    return max((choices for choices in asked if choices is not None), default=1)


def _prompts(fields: dict[str, msgspec.Raw], name: str) -> int:
    """Count the prompts: messages are one, and so is a list of token ids."""
    if name == "messages":
        if not _field(fields, name, list[msgspec.Raw]):
            raise InvalidRequest("'messages' must be a list of at least one message.", param=name)
        return 1
    value = _field(fields, name, str | list[str | int | list[int]])
    if value is None or value == []:
        raise InvalidRequest("'prompt' must be a text, a list of texts or token ids.", param=name)
    return 1 if isinstance(value, str) or isinstance(value[0], int) else len(value)


def _field(fields: dict[str, msgspec.Raw], name: str, kind: Any) -> Any:
    raw = fields.get(name)
    return None if raw is None else _decode(raw, kind | None, f"'{name}'", name)


def _decode(raw: bytes | msgspec.Raw, kind: Any, subject: str, param: str | None) -> Any:
    try:
        return msgspec.json.decode(raw, type=kind)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"{subject} is not valid: {error}.", param=param) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(f"{subject} is not valid JSON: {error}.", param=param) from error
