"""The body of a completion request: read as far as we must, and else left as it is."""

import re
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from dozen_chassis.errors import InvalidRequest

MAX_MODEL_LENGTH = 256

Prompt = Literal["messages", "prompt"]
"""The name of the field that the prompt is in."""

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
    prompt: Prompt,
    *,
    most_choices: int,
    most_tokens: int | None = None,
    is_capped: bool = True,
    may_stream: bool = True,
) -> CompletionRequest:
    """Read a request body whose prompt is in the field of that name.

    A body that asks for a stream comes back asking for its usage too, and one that would let an answer
    have more than `most_tokens` comes back with that limit; where nothing `is_capped`, only a limit of its
    own that is higher is replaced. Values that are not ours are kept byte for byte, and so is every other
    body. Unless it `may_stream`, the answer comes whole whatever the body says.
    """
    fields = _read(body)
    model = fields.model
    if not model or len(model) > MAX_MODEL_LENGTH:
        raise InvalidRequest("You must provide a model parameter.", param="model")
    asked = fields.messages if prompt == "messages" else fields.prompt
    choices = _prompts(asked, prompt) * fields.choices
    if not 0 < choices <= most_choices:
        raise InvalidRequest(
            f"This request asks for {choices} choices; from 1 to {most_choices} are allowed here.", param="n"
        )
    stream = bool(fields.stream)
    options = fields.stream_options or {}
    changed: dict[str, Any] = {}
    if most_tokens is not None:
        changed |= _limits(fields, prompt, most_tokens, is_capped=is_capped)
    dropped: tuple[str, ...] = ()
    if stream and may_stream:
        changed["stream_options"] = {**options, "include_usage": True}
    elif stream:
        dropped = ("stream", "stream_options")
    if changed or dropped:
        kept = {name: value for name, value in _RAW_FIELDS.decode(body).items() if name not in dropped}
        body = msgspec.json.encode({**kept, **changed})
    return CompletionRequest(
        body=body,
        model=model,
        stream=stream and may_stream,
        usage_asked=options.get("include_usage") is True,
        prompt_tokens=-(-len(memoryview(asked)) // 4),
        most_output_tokens=None if most_tokens is None else most_tokens * choices,
    )


class _Fields(msgspec.Struct):
    """What must be known of a body; the names are those of the body."""

    model: str | None = None
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None
    messages: msgspec.Raw = msgspec.Raw(b"null")
    prompt: msgspec.Raw = msgspec.Raw(b"null")
    # How many answers a prompt has: `best_of` is vLLM's and OpenAI's, `n_cmpl` is llama.cpp's name for `n`.
    n: int | None = None
    best_of: int | None = None
    n_cmpl: int | None = None
    # How long an answer may be; llama.cpp keeps to the first of these that a body has.
    n_predict: int | msgspec.UnsetType | None = msgspec.UNSET
    max_completion_tokens: int | msgspec.UnsetType | None = msgspec.UNSET
    max_tokens: int | msgspec.UnsetType | None = msgspec.UNSET

    @property
    def choices(self) -> int:
        """Give the number of answers to each prompt."""
        given = [number for number in (self.n, self.best_of, self.n_cmpl) if number is not None]
        return max(given) if given else 1


_FIELDS = msgspec.json.Decoder(_Fields)
_RAW_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_PROMPT = msgspec.json.Decoder(str | list[str | int | list[int]] | None)
_PLACE = re.compile(r" - at `\$\.(\w+)")
_LIST = re.compile(rb"\[\s*[^\]\s]")


def _read(body: bytes) -> _Fields:
    try:
        return _FIELDS.decode(body)
    except msgspec.ValidationError as error:
        place = _PLACE.search(str(error))
        subject = f"'{place[1]}'" if place else "The request body"
        raise InvalidRequest(f"{subject} is not valid: {error}.", param=place and place[1]) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(f"The request body is not valid JSON: {error}.") from error


def _limits(fields: _Fields, prompt: str, most: int, *, is_capped: bool) -> dict[str, int]:
    """Give the fields with which no answer has more tokens than `most`; none where that is so already."""
    asked = {name: getattr(fields, name) for name in _LIMITS}
    limits = {
        name: most  # below zero is llama.cpp's word for no limit
        for name, value in asked.items()
        if isinstance(value, int) and not 0 <= value <= most
    }
    heeded = _HEEDED[prompt]
    if is_capped and all(not isinstance(asked[name], int) for name in heeded):
        limits[next((name for name in heeded if asked[name] is None), heeded[0])] = most
    return limits


def _prompts(asked: msgspec.Raw, name: str) -> int:
    """Count the prompts: messages are one, and so is a list of token ids."""
    raw = memoryview(asked)
    if name == "messages":
        if not _LIST.match(raw):
            raise InvalidRequest("'messages' must be a list of at least one message.", param=name)
        return 1
    if bytes(raw[:1]) == b'"':
        return 1
    try:
        value = _PROMPT.decode(asked)
    except msgspec.MsgspecError:
        value = None
    if not value:
        raise InvalidRequest("'prompt' must be a text, a list of texts or token ids.", param=name)
    return 1 if isinstance(value[0], int) else len(value)
