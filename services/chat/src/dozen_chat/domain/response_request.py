"""Requests of the Responses API: what they may ask for, and what is refused."""

from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import Raw

from dozen_chat.domain.invalid import Invalid, check_metadata, decode
from dozen_chat.domain.items import Item, ItemReference, read_items, say
from dozen_chat.domain.response_options import (
    NAME,
    ConversationId,
    FunctionTool,
    JsonSchema,
    ReasoningOptions,
    Text,
    ToolChoice,
    check_choice,
    read_tools,
)

MAX_TOOLS = 128
MAX_ID = 64

LOGPROBS = "message.output_text.logprobs"
_INCLUDABLE = frozenset(
    {
        LOGPROBS,
        "file_search_call.results",
        "web_search_call.results",
        "web_search_call.action.sources",
        "message.input_image.image_url",
        "computer_call_output.output.image_url",
        "code_interpreter_call.outputs",
        "reasoning.encrypted_content",
    }
)
# Fields of a chat completion that are made of others here; every other one that we do not know is passed on.
_CHATS_OWN = frozenset(
    [
        "messages",
        "n",
        "best_of",
        "n_cmpl",
        "max_tokens",
        "max_completion_tokens",
        "n_predict",
        "response_format",
        "logprobs",
        "reasoning_effort",
        "functions",
        "function_call",
        "modalities",
        "audio",
        "prediction",
        "verbosity",
        "web_search_options",
    ]
)
_BACKGROUND = (
    "Responses in the background are not there yet. Leave out 'background', stream the answer, or submit the"
    " request as a job: POST /v1/jobs with the type 'chat.completions'."
)
_UNSUPPORTED = {
    "prompt": "Prompt templates are not supported here; send their text in 'instructions' or 'input'.",
    "context_management": "'context_management' is not supported here; send less input instead.",
    "moderation": "'moderation' is not supported here; ask POST /v1/moderations.",
}


Short: TypeAlias = Annotated[str, msgspec.Meta(max_length=512)]
Id: TypeAlias = Annotated[str, msgspec.Meta(max_length=MAX_ID)]


class ResponseRequest(msgspec.Struct):
    """The body of `POST /v1/responses`."""

    model: str = ""
    input: str | list[Any] | None = None
    instructions: str | None = None
    previous_response_id: Id | None = None
    conversation: Id | ConversationId | None = None
    tools: Annotated[list[dict[str, Raw]], msgspec.Meta(max_length=MAX_TOOLS)] | None = None
    tool_choice: Literal["none", "auto", "required"] | ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    max_tool_calls: int | None = None
    text: Text | None = None
    reasoning: ReasoningOptions | None = None
    max_output_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_logprobs: Annotated[int, msgspec.Meta(ge=0, le=20)] | None = None
    include: list[str] | None = None
    metadata: dict[str, str] | None = None
    truncation: Literal["auto", "disabled"] | None = None
    store: bool | None = None
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None
    background: bool | None = None
    background_options: Any = None
    service_tier: Short | None = None
    user: Short | None = None
    safety_identifier: Short | None = None
    prompt_cache_key: Short | None = None
    prompt_cache_retention: Short | None = None
    prompt_cache_options: Any = None
    prompt: Any = None
    context_management: Any = None
    moderation: Any = None

    @property
    def conversation_id(self) -> str:
        """Empty where the request belongs to no conversation."""
        conversation = self.conversation
        return (conversation.id if isinstance(conversation, ConversationId) else conversation) or ""

    @property
    def is_stored(self) -> bool:
        """Whether the response can be retrieved later."""
        return self.store is not False

    @property
    def with_logprobs(self) -> bool:
        """Whether the answer tells how likely its tokens were."""
        return LOGPROBS in (self.include or ())


class Asked(msgspec.Struct):
    """A request that was read."""

    request: ResponseRequest
    items: list[Item | ItemReference]
    tools: list[FunctionTool]
    passed_on: dict[str, Raw]
    """Fields that we do not know: a model's server may."""


def read_request(body: bytes) -> Asked:
    """Read the body of `POST /v1/responses`; raise `Invalid` where it asks for what is not done here."""
    fields = decode(body, dict[str, Raw])
    request = decode(body, ResponseRequest)
    unknown = fields.keys() - ResponseRequest.__struct_fields__
    if wrong := sorted(unknown & _CHATS_OWN):
        raise Invalid(f"Unknown parameter: '{wrong[0]}' is not a field of the Responses API.", wrong[0])
    _check(request)
    tools = read_tools(request.tools or ())
    check_choice(request.tool_choice, {tool.name for tool in tools})
    given = request.input
    items: list[Item | ItemReference]
    items = [say(given)] if isinstance(given, str) else read_items(given or (), "input")
    request.input, request.tools = None, None  # both are read
    return Asked(request, items, tools, {name: fields[name] for name in unknown})


def _check(request: ResponseRequest) -> None:
    if request.background:
        raise Invalid(_BACKGROUND, "background")
    for name, message in _UNSUPPORTED.items():
        if getattr(request, name) is not None:
            raise Invalid(message, name)
    if request.previous_response_id and request.conversation:
        raise Invalid("Give only one of 'previous_response_id' and 'conversation'.", "previous_response_id")
    if len(request.conversation_id) > MAX_ID:
        raise Invalid(f"'conversation.id' has at most {MAX_ID} characters.", "conversation.id")
    request.metadata = check_metadata(request.metadata)
    for name in request.include or ():
        if name not in _INCLUDABLE:
            raise Invalid(f"'{name}' is not something that can be included.", "include")
    form = request.text.format if request.text else None
    if isinstance(form, JsonSchema) and not NAME.fullmatch(form.name):
        raise Invalid("The name of a format has 1 to 64 letters, digits, '_' and '-'.", "text.format.name")
