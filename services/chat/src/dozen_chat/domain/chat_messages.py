"""Items as the messages of a chat completion."""

from collections.abc import Iterator, Sequence
from typing import Any

from msgspec import UNSET

from dozen_chat.domain.invalid import Invalid
from dozen_chat.domain.items import (
    Content,
    FunctionCall,
    FunctionCallOutput,
    InputAudio,
    InputFile,
    InputImage,
    Item,
    Message,
    Refusal,
)

ChatMessage = dict[str, Any]


def chat_messages(instructions: str | None, items: Sequence[Item]) -> list[ChatMessage]:
    """Give the messages that say the same; raise `Invalid` where calls and their outputs do not match."""
    _check_calls(items)
    messages: list[ChatMessage] = []
    if instructions:
        messages.append({"role": "system", "content": instructions})
    for item in items:
        match item:
            case Message():
                _add_message(messages, item)
            case FunctionCall() if item.status == "completed":
                _add_call(messages, item)
            case FunctionCallOutput():
                messages.append(
                    {"role": "tool", "tool_call_id": item.call_id, "content": _tool_content(item.output)}
                )
            case _:  # reasoning, for which chat completions have no place that all servers take
                pass
    if not messages:
        raise Invalid("There is nothing to answer: give 'input'.", "input")
    return messages


def _check_calls(items: Sequence[Item]) -> None:
    called: set[str] = set()
    answered: set[str] = set()
    for item in items:
        if isinstance(item, FunctionCall) and item.status == "completed":
            called.add(item.call_id)
        elif isinstance(item, FunctionCallOutput):
            if item.call_id not in called:
                raise Invalid(
                    f"No tool call found for function call output with call_id {item.call_id}.", "input"
                )
            answered.add(item.call_id)
    if missing := called - answered:
        raise Invalid(f"No tool output found for function call {min(missing)}.", "input")


def _add_message(messages: list[ChatMessage], item: Message) -> None:
    if item.role == "assistant":
        messages.append({"role": "assistant", "content": "".join(_said(part) for part in item.content)})
        return
    content = _parts(item.content)
    if item.role == "user":
        messages.append({"role": "user", "content": content})
    elif len(messages) == 1 and messages[0]["role"] == "system" and isinstance(content, str):
        messages[0]["content"] += (
            "\n\n" + content
        )  # many chat templates take one system message, at the start
    else:
        messages.append({"role": "system", "content": content})


def _add_call(messages: list[ChatMessage], item: FunctionCall) -> None:
    call = {
        "id": item.call_id,
        "type": "function",
        "function": {"name": item.name, "arguments": item.arguments},
    }
    last = messages[-1] if messages else {}
    if last.get("role") == "assistant":  # what it said, and other calls, are of the same breath
        last.setdefault("tool_calls", []).append(call)
        last["content"] = last["content"] or None
    else:
        messages.append({"role": "assistant", "content": None, "tool_calls": [call]})


def _said(part: Content) -> str:
    if isinstance(part, Refusal):
        return part.refusal
    text: str | None = getattr(part, "text", None)
    if text is None:
        raise Invalid("What an assistant says can only be text.", "input")
    return text


def _tool_content(output: str | list[Content]) -> Any:
    return output if isinstance(output, str) else _parts(output)


def _parts(content: Sequence[Content]) -> Any:
    """Give one text as itself, which every server takes, and all else as parts."""
    parts = list(_each_part(content))
    if not parts:
        return ""
    if len(parts) == 1 and parts[0]["type"] == "text":
        return parts[0]["text"]
    return parts


def _each_part(content: Sequence[Content]) -> Iterator[dict[str, Any]]:
    for part in content:
        match part:
            case InputImage():
                if not part.image_url:
                    raise Invalid("Images are taken as 'image_url', a URL or a data URL.", "input")
                image = {"url": part.image_url}
                if part.detail and part.detail != "auto":
                    image["detail"] = part.detail
                yield {"type": "image_url", "image_url": image}
            case InputFile():
                if not part.file_data and not part.file_url:
                    raise Invalid("Files are taken as 'file_data' or 'file_url'.", "input")
                names = ("filename", "file_data", "file_url")
                yield {"type": "file", "file": {name: found for name in names if (found := _set(part, name))}}
            case InputAudio():
                yield {"type": "input_audio", "input_audio": part.input_audio}
            case _:
                yield {"type": "text", "text": _said(part)}


def _set(part: InputFile, name: str) -> str | None:
    value = getattr(part, name)
    return None if value is UNSET else value
