"""What Gemini's API refuses beyond fields that it does not know."""

import base64
import binascii
import json
import re
from typing import Any

import msgspec

from dozen_testing.imitations.gemini.requests import Content, GenerationConfig, Part, Request
from dozen_testing.imitations.script import Refused

SIGNATURE = "c2lnbmVkIGJ5IHRoZSBpbWl0YXRpb24="

_NO_CHECK = "skip_thought_signature_validator"
_OPAQUE = ("args", "response", "parameters", "parametersJsonSchema", "responseSchema", "responseJsonSchema")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.:-]{0,127}")
_RANGES = {"temperature": (0, 2), "topP": (0, 1), "candidateCount": (1, 8), "maxOutputTokens": (1, 65_536)}


def refuse(message: str, field: str = "") -> Refused:
    """Give the refusal of a request that is not valid."""
    violations = [{"field": field, "description": message}] if field else []
    kind = "type.googleapis.com/google.rpc.BadRequest"
    details = [{"@type": kind, "fieldViolations": violations}] if violations else []
    return Refused(400, "INVALID_ARGUMENT", message, details=details)


def read_request(body: Any, model: str) -> Request:
    """Read a request; raise unless the real API would take it."""
    try:
        request = msgspec.json.decode(json.dumps(_camel(body)).encode(), type=Request)
    except msgspec.ValidationError as error:
        raise _validation(str(error)) from error
    generation = 3 if model.startswith("gemini-3") else 2
    _check_config(request.generation_config, generation)
    _check_contents(request.contents, generation)
    _check_functions(request)
    for part in request.system_instruction.parts if request.system_instruction else ():
        if part.text is None:
            raise refuse("System instruction must be text.", "system_instruction")
    return request


def _camel(value: Any) -> Any:
    """Give fields by the one of their two names that JSON prefers; both are taken."""
    if isinstance(value, list):
        return [_camel(one) for one in value]
    if not isinstance(value, dict):
        return value
    found = {}
    for name, held in value.items():
        camel = re.sub(r"_([a-z])", lambda match: match[1].upper(), name)
        found[camel] = held if camel in _OPAQUE else _camel(held)
    return found


def _validation(told: str) -> Refused:
    message, _, place = told.partition(" - at `$")
    place = re.sub(r"([A-Z])", r"_\1", place.strip(".`")).lower()
    if found := re.fullmatch(r"Object contains unknown field `(.*)`", message):
        at = f" at '{place}'" if place else ""
        return refuse(
            f'Invalid JSON payload received. Unknown name "{found[1]}"{at}: Cannot find field.', place
        )
    return refuse(f"Invalid value at '{place}': {message}", place)


def _check_config(config: GenerationConfig, generation: int) -> None:
    for name, (least, most) in _RANGES.items():
        value = msgspec.to_builtins(config).get(name)
        if value is not None and not least <= value <= most:
            field = "generation_config." + re.sub(r"([A-Z])", r"_\1", name).lower()
            raise refuse(f"* GenerateContentRequest.{field}: {value} is out of the supported range.", field)
    if len(config.stop_sequences or ()) > 5:
        raise refuse("At most 5 stop sequences are supported.", "generation_config.stop_sequences")
    has_schema = config.response_schema is not None or config.response_json_schema is not None
    if has_schema and config.response_mime_type != "application/json":
        raise refuse(
            "Function calling with a response mime type: 'text/plain' is unsupported for a schema",
            "generation_config.response_mime_type",
        )
    if config.response_schema is not None and config.response_json_schema is not None:
        raise refuse("Only one of response_schema and response_json_schema may be set.")
    if config.logprobs is not None and not config.response_logprobs:
        raise refuse("logprobs needs response_logprobs.", "generation_config.logprobs")
    thinking = config.thinking_config
    if thinking is not None:
        if thinking.thinking_budget is not None and thinking.thinking_level is not None:
            raise refuse("You can only set only one of thinking budget and thinking level.")
        if thinking.thinking_level is not None and generation < 3:
            raise refuse("Thinking level is not supported for this model.")


def _check_contents(contents: list[Content], generation: int) -> None:
    if not contents:
        raise refuse("* GenerateContentRequest.contents: contents is not specified", "contents")
    calls = 0
    for index, content in enumerate(contents):
        if content.role not in (None, "user", "model"):
            raise refuse("Please use a valid role: user, model.", f"contents[{index}].role")
        if not content.parts:
            raise refuse(
                f"* GenerateContentRequest.contents[{index}].parts: contents.parts must not be empty."
            )
        for at, part in enumerate(content.parts):
            _check_part(part, content.role or "user", f"contents[{index}].parts[{at}]")
        responses = sum(part.function_response is not None for part in content.parts)
        if responses != calls:
            raise refuse(
                "Please ensure that the number of function response parts is equal to the number of function"
                " call parts of the function call turn."
            )
        called = [part for part in content.parts if part.function_call is not None]
        calls = len(called)
        if calls and index == 0:
            raise refuse("Please ensure that function call turn comes immediately after a user turn.")
        if called and generation >= 3 and called[0].thought_signature not in (SIGNATURE, _NO_CHECK):
            raise refuse("Function call is missing a thought_signature in functionCall parts.")
    if calls:
        raise refuse("Please ensure that function response turn comes after a function call turn.")


def _check_part(part: Part, role: str, place: str) -> None:
    if len(part.data) != 1:
        raise refuse("required oneof field 'data' must have one initialized field", place)
    if part.text == "":
        raise refuse(f"Unable to submit request because {place} is empty.", place)
    if part.function_call is not None and role != "model":
        raise refuse("A function call can only be in a turn of the model.", place)
    if part.function_response is not None and role == "model":
        raise refuse("A function response can only be in a turn of the user.", place)
    if part.inline_data is not None:
        try:
            base64.b64decode(part.inline_data.data, validate=True)
        except binascii.Error as error:
            raise refuse(f"Invalid value at '{place}.inline_data.data' (TYPE_BYTES)", place) from error


def _check_functions(request: Request) -> None:
    names = [function.name for function in request.functions]
    for name in names:
        if not _NAME.fullmatch(name):
            raise refuse("Invalid function name. Must start with a letter or an underscore.", "tools")
    if len(set(names)) < len(names):
        raise refuse("Duplicate function declaration found.", "tools")
    calling = request.calling
    if request.tool_config is not None and calling.mode != "AUTO" and not names:
        raise refuse("Function calling config is set without function_declarations.", "tool_config")
    if calling.allowed_function_names is not None:
        if calling.mode not in ("ANY", "VALIDATED"):
            raise refuse(
                "Function calling mode must be ANY when allowed_function_names is set.", "tool_config"
            )
        if set(calling.allowed_function_names) - set(names):
            raise refuse("allowed_function_names contains an undeclared function.", "tool_config")
