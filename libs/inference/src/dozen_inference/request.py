"""The body of a completion request: read as far as we must, and else left as it is."""

from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from dozen_chassis.errors import InvalidRequest

MAX_MODEL_LENGTH = 256


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


def prepare(
    body: bytes, prompt: Literal["messages", "prompt"], *, most_choices: int, may_stream: bool = True
) -> CompletionRequest:
    """Read a request body whose prompt is in the field of that name.

    A body that asks for a stream comes back asking for its usage too; values that are not ours are kept
    byte for byte, and so is the body of a request for a whole answer. Unless it `may_stream`, the answer
    comes whole whatever the body says.
    """
    fields = _decode(body, dict[str, msgspec.Raw], "The request body", None)
    model = _field(fields, "model", str)
    if not model or len(model) > MAX_MODEL_LENGTH:
        raise InvalidRequest("You must provide a model parameter.", param="model")
    each = _field(fields, "n", int)
    choices = _prompts(fields, prompt) * (1 if each is None else each)
    if not 0 < choices <= most_choices:
        raise InvalidRequest(
            f"This request asks for {choices} choices; from 1 to {most_choices} are allowed here.", param="n"
        )
    stream = bool(_field(fields, "stream", bool))
    options = _field(fields, "stream_options", dict[str, Any]) or {}
    if stream and may_stream:
        fields["stream_options"] = msgspec.Raw(msgspec.json.encode({**options, "include_usage": True}))
        body = msgspec.json.encode(fields)
    elif stream:
        body = msgspec.json.encode({k: v for k, v in fields.items() if k not in ("stream", "stream_options")})
    return CompletionRequest(
        body=body,
        model=model,
        stream=stream and may_stream,
        usage_asked=options.get("include_usage") is True,
        prompt_tokens=-(-len(memoryview(fields[prompt])) // 4),
    )


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
