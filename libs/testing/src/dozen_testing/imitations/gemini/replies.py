"""What the imitated model says, and the events in which it says it."""

import itertools
import json
from collections.abc import Iterator
from typing import Any

from dozen_testing.imitations.gemini.requests import FunctionDeclaration, Request
from dozen_testing.imitations.gemini.rules import SIGNATURE

THOUGHT = "What could they mean? — 考える"
_numbers = itertools.count(1)


def reply(request: Request, model: str, values: dict[str, Any]) -> dict[str, Any]:
    """Give an answer: calls of the functions where there are any and none was called, else what was said.

    `values` are the values of properties that an argument or an answer after a schema has.
    """
    config = request.generation_config
    candidates = [
        {
            "content": {"parts": _parts(request, model, values), "role": "model"},
            "finishReason": "STOP",
            "index": index,
        }
        for index in range(config.candidate_count)
    ]
    for candidate in candidates:
        _end(candidate, request)
    return {"candidates": candidates, "usageMetadata": _usage(11), **_identity(model)}


def blocked(model: str, reason: str) -> dict[str, Any]:
    """Give the answer to a prompt that is not answered."""
    usage = {"promptTokenCount": 7, "totalTokenCount": 7}
    return {"promptFeedback": {"blockReason": reason}, "usageMetadata": usage, **_identity(model)}


def events(answer: dict[str, Any]) -> Iterator[bytes]:
    """Give the events of a streamed answer: each adds to those before, the last one says why it ended."""
    identity = {name: answer[name] for name in ("modelVersion", "responseId")}
    candidates = answer.get("candidates")
    if not candidates:
        yield event(answer)
        return
    (candidate,) = candidates
    pieces = [piece for part in candidate["content"]["parts"] for piece in _pieces(part)]
    for index, piece in enumerate(pieces):
        is_last = index == len(pieces) - 1
        told: dict[str, Any] = {"content": {"parts": [piece], "role": "model"}, "index": 0}
        if is_last:
            told |= {
                name: candidate[name] for name in ("finishReason", "logprobsResult") if name in candidate
            }
        usage = answer["usageMetadata"] if is_last else _usage(1)
        yield event({"candidates": [told], "usageMetadata": usage, **identity})


def event(data: Any) -> bytes:
    """Give one event."""
    return f"data: {json.dumps(data, ensure_ascii=False)}\r\n\r\n".encode()


def _identity(model: str) -> dict[str, str]:
    return {"modelVersion": model, "responseId": f"resp{next(_numbers):04}"}


def _usage(candidates: int) -> dict[str, int]:
    return {
        "promptTokenCount": 30, "cachedContentTokenCount": 20, "candidatesTokenCount": candidates,
        "thoughtsTokenCount": 4, "totalTokenCount": 34 + candidates,
    }  # fmt: skip


def _parts(request: Request, model: str, values: dict[str, Any]) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = []
    config = request.generation_config
    if config.thinking_config and config.thinking_config.include_thoughts:
        parts.append({"text": THOUGHT, "thought": True})
    called = _called(request)
    for index, function in enumerate(called):
        schema = function.parameters_json_schema or function.parameters or {}
        call: dict[str, Any] = {"name": function.name, "args": _instance(schema, values)}
        part: dict[str, Any] = {"functionCall": call}
        if model.startswith("gemini-3"):
            call["id"] = f"fc_{index}"
            if index == 0:
                part["thoughtSignature"] = SIGNATURE
        parts.append(part)
    if called:
        return parts
    if config.response_mime_type == "application/json":
        schema = config.response_json_schema or config.response_schema or {}
        parts.append({"text": json.dumps(_instance(schema, values), ensure_ascii=False)})
    else:
        parts.append({"text": f"You said: {_last_text(request)}"})
    return parts


def _end(candidate: dict[str, Any], request: Request) -> None:
    config, last = request.generation_config, candidate["content"]["parts"][-1]
    text = last.get("text", "")
    for stop in config.stop_sequences or ():
        if stop in text:
            last["text"] = text = text.partition(stop)[0]
    if config.max_output_tokens is not None and len(text.split()) > config.max_output_tokens:
        candidate["finishReason"] = "MAX_TOKENS"
    if config.response_logprobs and text:
        chosen = [{"token": word, "logProbability": -0.25} for word in text.split()]
        top = [{"candidates": [token] * (config.logprobs or 0)} for token in chosen]
        candidate["logprobsResult"] = {"chosenCandidates": chosen, "topCandidates": top}


def _pieces(part: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if "functionCall" in part:
        yield part
        return
    for start in range(0, len(part["text"]), 7):
        yield {**part, "text": part["text"][start : start + 7]}


def _called(request: Request) -> list[FunctionDeclaration]:
    calling = request.calling
    has_result = any(part.function_response for part in request.contents[-1].parts)
    if calling.mode == "NONE" or (has_result and calling.mode != "ANY"):
        return []
    allowed = calling.allowed_function_names
    return [function for function in request.functions if allowed is None or function.name in allowed]


def _last_text(request: Request) -> str:
    found = []
    for part in request.contents[-1].parts:
        if part.text is not None:
            found.append(part.text)
        elif part.function_response is not None:
            found.append(f"[{part.function_response.name}] {part.function_response.response.get('output')}")
        else:
            found.append("<media>")
    return " ".join(found)


def _instance(schema: dict[str, Any], values: dict[str, Any]) -> Any:
    """Give a value for a schema of objects with simple properties."""
    return {name: values.get(name, "東京") for name in schema.get("properties", {})}
