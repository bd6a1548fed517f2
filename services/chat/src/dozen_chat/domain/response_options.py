"""Parts of requests of the Responses API that a response tells again."""

import re
from collections.abc import Sequence
from typing import Any, Literal

import msgspec
from msgspec import UNSET, Raw, UnsetType

from dozen_chat.domain.invalid import Invalid, decode

NONE = Raw(b"null")
NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""Of a function, and of the form of an answer."""


class FunctionTool(msgspec.Struct, tag_field="type", tag="function"):
    """A function that the model may want to be called."""

    name: str
    parameters: Raw = NONE
    strict: bool | None = None
    description: str | None = None


class TextFormat(msgspec.Struct, tag_field="type", tag="text"):
    """Any text."""


class JsonObject(msgspec.Struct, tag_field="type", tag="json_object"):
    """JSON of any form."""


class JsonSchema(msgspec.Struct, tag_field="type", tag="json_schema"):
    """JSON of a certain form."""

    name: str
    schema: Raw
    description: str | UnsetType | None = UNSET
    strict: bool | None = None


class Text(msgspec.Struct):
    """What the text of the answer is like."""

    format: TextFormat | JsonObject | JsonSchema | None = msgspec.field(default_factory=TextFormat)
    verbosity: Literal["low", "medium", "high"] | UnsetType | None = UNSET


class ReasoningOptions(msgspec.Struct):
    """How much the model thinks."""

    effort: str | None = None
    summary: str | None = None
    generate_summary: str | UnsetType | None = UNSET


class ConversationId(msgspec.Struct):
    """The conversation that a request is a turn of."""

    id: str


class ToolChoice(msgspec.Struct, omit_defaults=True):
    """Which tools the model may or must use."""

    type: str
    name: str | UnsetType = UNSET
    mode: Literal["auto", "required"] | UnsetType = UNSET
    tools: list[dict[str, Any]] | UnsetType = UNSET


def read_tools(given: Sequence[dict[str, Raw]]) -> list[FunctionTool]:
    """Read the tools of a request, which can only be functions."""
    return [_tool(tool, f"tools[{index}]") for index, tool in enumerate(given)]


def check_choice(choice: str | ToolChoice | None, names: set[str]) -> None:
    """Raise `Invalid` unless all that is chosen is among the names of tools."""
    if isinstance(choice, ToolChoice):
        if choice.type == "function":
            wanted: list[Any] = [choice.name]
        elif choice.type == "allowed_tools" and choice.tools and choice.mode:
            wanted = [tool.get("name") for tool in choice.tools if tool.get("type") == "function"]
            if len(wanted) < len(choice.tools):
                raise Invalid("Only functions are supported here.", "tool_choice.tools")
        else:
            raise Invalid(f"'{choice.type}' is not a choice that is supported here.", "tool_choice")
        for name in wanted:
            if not isinstance(name, str) or name not in names:
                raise Invalid(f"Tool choice '{name}' is not among 'tools'.", "tool_choice")
    elif choice == "required" and not names:
        raise Invalid("Tool choice 'required' needs 'tools'.", "tool_choice")


def _tool(given: dict[str, Raw], param: str) -> FunctionTool:
    tag = bytes(given.get("type", b"null"))
    if tag != b'"function"':
        raise Invalid(
            f"Tools of the type {tag.decode()[:100]} are not supported here, only functions of your own.",
            f"{param}.type",
        )
    tool = decode(msgspec.json.encode(given), FunctionTool, param)
    if not NAME.fullmatch(tool.name):
        raise Invalid("The name of a function has 1 to 64 letters, digits, '_' and '-'.", f"{param}.name")
    return tool
