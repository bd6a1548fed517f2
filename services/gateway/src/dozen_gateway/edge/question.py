"""What the JSON body of a request asks for; only what a decision needs of it is read."""

import zlib
from collections.abc import Sequence

import msgspec

from dozen_chassis.errors import InvalidRequest
from dozen_gateway.domain.bounds import Asked

LEAST_PREFIX_BYTES = 512
MOST_PREFIX_BYTES = 4096

CHAT, COMPLETIONS, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/responses"
MESSAGES, EMBEDDINGS = "/v1/messages", "/v1/embeddings"

_NOTHING = msgspec.Raw()
_FAULTS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class Question(msgspec.Struct, frozen=True, gc=False):
    """What a body asks for, and of whom."""

    model: str
    asked: Asked
    stream: bool = False
    prefix: str = ""


class _Json(msgspec.Struct, gc=False):
    model: str | None = None
    stream: bool | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    max_output_tokens: int | None = None
    n: int | None = None
    best_of: int | None = None
    n_cmpl: int | None = None
    """What llama.cpp calls `n`."""
    prompt: msgspec.Raw = _NOTHING
    messages: msgspec.Raw = _NOTHING
    system: msgspec.Raw = _NOTHING
    input: msgspec.Raw = _NOTHING
    instructions: msgspec.Raw = _NOTHING
    previous_response_id: msgspec.Raw = _NOTHING
    conversation: msgspec.Raw = _NOTHING


class _Part(msgspec.Struct):
    type: str
    content: "str | list[_Part] | None" = None
    """Of what a tool gave, in Anthropic's words."""


class _Item(msgspec.Struct):
    type: str | None = None
    content: str | list[_Part] | None = None
    output: str | list[_Part] | None = None


_DECODER = msgspec.json.Decoder(_Json)
_ITEMS = msgspec.json.Decoder(list[_Item])
_PROMPTS = msgspec.json.Decoder(list[msgspec.Raw])
_TEXTS = {
    "text", "input_text", "output_text", "refusal", "reasoning_text", "summary_text",
    "tool_use", "tool_result", "thinking", "redacted_thinking",
}  # fmt: skip
_STORED = "item_reference"


def read_json(path: str, body: bytes) -> Question:
    """Read what the body of a request to a path asks for."""
    try:
        fields = _DECODER.decode(body)
    except _FAULTS as error:
        message, _, place = str(error).partition(" - at `$.")
        raise InvalidRequest(
            f"The request body is not what this endpoint takes: {message}.",
            param=place.removesuffix("`") or None,
        ) from error
    most = fields.max_completion_tokens
    if most is None:
        most = fields.max_tokens if fields.max_output_tokens is None else fields.max_output_tokens
    choices = max(fields.n or 1, fields.best_of or 0, fields.n_cmpl or 0)
    if path == RESPONSES:
        prompt = fields.instructions, fields.input
        stored = fields.previous_response_id, fields.conversation, fields.prompt
        media = _media_parts(fields.input) + sum(map(_is_given, stored))
    else:
        prompt = fields.system, fields.messages
        media = _media_parts(fields.messages)
        if path not in (CHAT, MESSAGES):
            prompt = fields.prompt, fields.messages
            choices *= _prompts(fields.prompt)
    asked = Asked(len(body), choices, most, media)
    return Question(fields.model or "", asked, bool(fields.stream), _prefix(prompt))


def _is_given(raw: msgspec.Raw) -> bool:
    return bytes(raw) not in (b"", b"null")


def _prompts(prompt: msgspec.Raw) -> int:
    """Count the prompts; a list of token ids is one."""
    if bytes(memoryview(prompt)[:1]) != b"[":
        return 1
    prompts = _PROMPTS.decode(prompt)
    return len(prompts) if prompts and bytes(memoryview(prompts[0])[:1]) in (b'"', b"[") else 1


def _media_parts(raw: msgspec.Raw) -> int:
    """Count the parts of messages or items that are no text or not here; what cannot be read may be one."""
    text = bytes(raw)
    if text[:1] != b"[":
        return 0
    if text.count(b"[") == 1 and _STORED.encode() not in text and b"\\u00" not in text:
        return 0  # no content is a list
    try:
        items = _ITEMS.decode(text)
    except _FAULTS:
        return 1
    return sum((item.type == _STORED) + _media(item.content) + _media(item.output) for item in items)


def _media(content: str | list[_Part] | None) -> int:
    if not isinstance(content, list):
        return 0
    return sum((part.type not in _TEXTS) + _media(part.content) for part in content)


def _prefix(prompt: Sequence[msgspec.Raw]) -> str:
    """Hash the first part of a prompt, in the same way at every edge: CRC-32 (ISO 3309) in hex.

    Of the prompt as it stands in the body, instructions first, 512, 1024, 2048 or 4096 bytes count: the most
    that there are, so that a conversation seldom gets another hash as it goes on.
    """
    whole = [memoryview(part) for part in prompt]
    left = sum(map(len, whole))
    if left < LEAST_PREFIX_BYTES:
        return ""
    left = min(1 << (left.bit_length() - 1), MOST_PREFIX_BYTES)
    found = 0
    for part in whole:
        found = zlib.crc32(part[:left], found)
        left -= min(left, len(part))
    return f"{found:08x}"
