"""The content filter: what clients send and what models write is looked at before it goes further."""

from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from contextlib import aclosing, suppress
from dataclasses import replace
from typing import Any, Protocol

import msgspec
from prometheus_client import Counter

from dozen_chassis.admission import Admission
from dozen_chassis.errors import ServiceError, Status
from dozen_inference.generation import Answer
from dozen_inference.streams import EventCutter

BLOCKED = Counter("dozen_inference_filtered", "Prompts and answers that were blocked.", ["model", "side"])

MOST_CHARACTERS = 50_000
"""Of a prompt; a longer one is refused where it has to pass the filter."""
_TOGETHER = 32
_WINDOW_CHARACTERS = 160
"""So much of a stream is looked at together, to the end of a sentence; until then it is held back."""
_LONGEST_WINDOW = 2_000
_SENTENCE_ENDS = (".", "!", "?", "\n", "\u3002")


class ContentFiltered(ServiceError):
    """The request was blocked by the content filter."""

    status = Status.INVALID_ARGUMENT
    code = "content_filter"


class PromptTooLongToFilter(ServiceError):
    """The prompt has too many characters to pass the content filter of this model."""

    status = Status.INVALID_ARGUMENT
    code = "context_length_exceeded"


class FilterUnavailable(ServiceError):
    """The content filter of this model cannot be asked; try again later."""

    status = Status.UNAVAILABLE
    code = "content_filter_unavailable"


class Moderator(Protocol):
    """Tells what is harmful."""

    async def categories(self, texts: Sequence[str]) -> list[Sequence[str]]:
        """Give the categories of harm that each text is in; raise `FilterUnavailable` where none can tell."""
        ...


def is_filtered(admission: Admission) -> bool:
    """Tell whether the policy of the model is that prompts and answers pass the filter."""
    return admission.facts.get("filter") == "on"


class ContentFilter:
    """Blocks prompts and answers that a moderator finds harmful; without it nothing passes."""

    def __init__(self, moderator: Moderator) -> None:
        self._moderator = moderator

    def answer(self, admission: Admission, body: bytes, produced: Answer) -> Answer:
        """Give the answer that is produced as far as it passes; `body` is what the client sent.

        A prompt that is blocked raises `ContentFiltered` before it is sent anywhere. An answer that is
        blocked ends with the finish reason `content_filter`, and costs what was generated.
        """
        model = admission.facts.get("model", "")
        passing = self._stream(model, produced) if produced.stream else self._whole(model, produced)
        return replace(produced, chunks=self._chunks(model, body, produced, passing))

    async def _chunks(
        self, model: str, body: bytes, produced: Answer, passing: AsyncGenerator[bytes, None]
    ) -> AsyncGenerator[bytes, None]:
        async with aclosing(produced.chunks):
            texts = list(_prompt_texts(body))
            if sum(map(len, texts)) > MOST_CHARACTERS:
                raise PromptTooLongToFilter()
            if found := await self._harm(texts):
                BLOCKED.labels(model, "prompt").inc()
                raise ContentFiltered(f"The content filter has blocked this prompt: {', '.join(found)}.")
            async with aclosing(passing) as chunks:
                async for chunk in chunks:
                    yield chunk

    async def _harm(self, texts: Iterable[str]) -> list[str]:
        looked_at = [text for text in texts if text.strip()]
        found: set[str] = set()
        for start in range(0, len(looked_at), _TOGETHER):
            for categories in await self._moderator.categories(looked_at[start : start + _TOGETHER]):
                found.update(categories)
        return sorted(found)

    async def _whole(self, model: str, produced: Answer) -> AsyncGenerator[bytes, None]:
        async for chunk in produced.chunks:
            answer: dict[str, Any] = msgspec.json.decode(chunk)
            blocked = False
            for choice in answer.get("choices", []):
                message = choice.get("message") or choice
                if await self._harm([text for name in _TEXTS if isinstance(text := message.get(name), str)]):
                    BLOCKED.labels(model, "answer").inc()
                    message.update(
                        {name: None if name != "text" else "" for name in _TEXTS if name in message}
                    )
                    choice["finish_reason"] = "content_filter"
                    blocked = True
            yield msgspec.json.encode(answer) if blocked else chunk

    async def _stream(self, model: str, produced: Answer) -> AsyncGenerator[bytes, None]:
        cutter, held, windows, last = EventCutter(), bytearray(), dict[int, str](), _Chunk()
        async for chunk in produced.chunks:
            for event in cutter.feed(chunk):
                held += event
                if (read := _read(event)) is None:
                    continue
                last = read
                for choice in read.choices:
                    windows[choice.index] = windows.get(choice.index, "") + choice.written
            if not _is_ripe(windows):
                continue
            if await self._harm(windows.values()):
                break
            yield bytes(held)
            held.clear()
            windows.clear()
        else:
            if not await self._harm(windows.values()):
                yield bytes(held)
                return
        BLOCKED.labels(model, "answer").inc()
        with suppress(ServiceError, StopAsyncIteration):
            await produced.chunks.athrow(ContentFiltered())  # which settles what was generated
        yield last.blocked()


_TEXTS = ("content", "text", "reasoning_content", "refusal")


class _Delta(msgspec.Struct):
    content: str | None = None
    reasoning_content: str | None = None
    refusal: str | None = None


class _Choice(msgspec.Struct):
    index: int = 0
    delta: _Delta | None = None
    text: str | None = None

    @property
    def written(self) -> str:
        delta = self.delta or _Delta()
        return (self.text or "") + (delta.reasoning_content or "") + (delta.content or delta.refusal or "")


class _Chunk(msgspec.Struct):
    id: str = ""
    object: str = "chat.completion.chunk"
    created: int = 0
    model: str = ""
    choices: list[_Choice] = []

    def blocked(self) -> bytes:
        """Give the events that end the stream of which this is a chunk."""
        said: dict[str, Any] = {"text": ""} if self.object == "text_completion" else {"delta": {}}
        end = {
            "id": self.id,
            "object": self.object,
            "created": self.created,
            "model": self.model,
            "choices": [{"index": 0, **said, "finish_reason": "content_filter"}],
        }
        return b"data: " + msgspec.json.encode(end) + b"\n\ndata: [DONE]\n\n"


def _read(event: bytes) -> _Chunk | None:
    start = event.find(b"{")
    if start < 0:
        return None
    try:
        return msgspec.json.decode(event[start:], type=_Chunk)
    except msgspec.MsgspecError:
        return None


def _is_ripe(windows: dict[int, str]) -> bool:
    """Tell whether there is enough to look at, and of whole sentences."""
    longest = max(windows.values(), key=len, default="")
    ended = longest.rstrip(" ").endswith(_SENTENCE_ENDS)
    return len(longest) > _LONGEST_WINDOW or (ended and len(longest) > _WINDOW_CHARACTERS)


def _prompt_texts(body: bytes) -> Iterator[str]:
    """Give all that a request wants the model to read."""
    fields: dict[str, Any] = msgspec.json.decode(body)
    prompt = fields.get("prompt")
    if isinstance(prompt, str):
        yield prompt
    elif isinstance(prompt, list):
        yield from (text for text in prompt if isinstance(text, str))
    for message in fields.get("messages") or []:
        content = message.get("content") if isinstance(message, dict) else None
        for part in content if isinstance(content, list) else [content]:
            text = part.get("text") if isinstance(part, dict) else part
            if isinstance(text, str):
                yield text
