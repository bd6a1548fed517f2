"""The imitation of Gemini's API is one to its official client, and refuses what the real one does."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from google.genai import Client, errors, types
from google.genai.client import AsyncClient

from dozen_testing.http import serve
from dozen_testing.imitations.gemini.api import GeminiApi
from dozen_testing.imitations.gemini.replies import THOUGHT
from dozen_testing.imitations.script import Refused

MODEL = "gemini-2.5-flash"
WEATHER = {
    "name": "get_weather",
    "parametersJsonSchema": {"type": "object", "properties": {"city": {"type": "string"}}},
}
TIME = {"name": "get_time"}
TOOLS: Any = {"tools": [{"functionDeclarations": [WEATHER, TIME]}]}
USER: Any = {"role": "user", "parts": [{"text": "Grüße 東京"}]}
CALLED = {"role": "model", "parts": [{"functionCall": {"name": "get_weather", "args": {}}}]}
RESULT = {"functionResponse": {"name": "get_weather", "response": {"output": "sunny"}}}

pytestmark = pytest.mark.filterwarnings("ignore:Inheritance class:DeprecationWarning")  # in their client


@pytest.fixture
def api() -> GeminiApi:
    return GeminiApi("secret", values={"city": "東京"})


@asynccontextmanager
async def client_of(api: GeminiApi, key: str = "secret") -> AsyncIterator[AsyncClient]:
    async with serve(api) as url:
        options = types.HttpOptions(base_url=url)
        async with Client(api_key=key, http_options=options).aio as client:
            yield client


async def generate(api: GeminiApi, contents: Any = USER, model: str = MODEL, **config: Any) -> Any:
    options: Any = config or None
    async with client_of(api) as client:
        return await client.models.generate_content(model=model, contents=contents, config=options)


async def listen(api: GeminiApi, model: str = MODEL, **config: Any) -> list[Any]:
    options: Any = config or None
    async with client_of(api) as client:
        stream = await client.models.generate_content_stream(model=model, contents=USER, config=options)
        return [answer async for answer in stream]


async def test_it_answers(api: GeminiApi) -> None:
    answer = await generate(api)
    assert answer.text == "You said: Grüße 東京"
    assert answer.usage_metadata.cached_content_token_count == 20
    assert answer.candidates[0].finish_reason == types.FinishReason.STOP
    two = await generate(api, candidate_count=2, max_output_tokens=2, response_logprobs=True, logprobs=1)
    assert [one.finish_reason.value for one in two.candidates] == ["MAX_TOKENS", "MAX_TOKENS"]
    assert two.candidates[0].logprobs_result.chosen_candidates[0].log_probability == -0.25


@pytest.mark.parametrize("split", [None, 1, 7])
async def test_its_streams_are_taken_by_the_client(api: GeminiApi, split: int | None) -> None:
    api.script.split = split
    answers = await listen(api, thinking_config={"include_thoughts": True})
    parts = [part for answer in answers for part in answer.candidates[0].content.parts]
    assert "".join(part.text for part in parts if part.thought) == THOUGHT
    assert "".join(part.text for part in parts if not part.thought) == "You said: Grüße 東京"
    assert answers[-1].usage_metadata.candidates_token_count == 11
    assert answers[-1].candidates[0].finish_reason == types.FinishReason.STOP


async def test_it_calls_functions(api: GeminiApi) -> None:
    first = await generate(api, model="gemini-3-pro", **TOOLS)
    weather, clock = first.function_calls
    assert (weather.name, weather.args, clock.name) == ("get_weather", {"city": "東京"}, "get_time")
    responses = [
        types.Part(
            function_response=types.FunctionResponse(id=call.id, name=call.name, response={"output": "so"})
        )
        for call in (weather, clock)
    ]
    contents = [USER, first.candidates[0].content, types.Content(role="user", parts=responses)]
    second = await generate(api, contents, "gemini-3-pro", system_instruction="Be brief.", **TOOLS)
    assert second.text == "You said: [get_weather] so [get_time] so"
    only = {"function_calling_config": {"mode": "ANY", "allowed_function_names": ["get_time"]}}
    assert [call.name for call in (await generate(api, **TOOLS, tool_config=only)).function_calls] == [
        "get_time"
    ]
    none = {"function_calling_config": {"mode": "NONE"}}
    assert (await generate(api, **TOOLS, tool_config=none)).function_calls is None


async def test_it_answers_after_a_schema_and_stops(api: GeminiApi) -> None:
    schema = {"type": "object", "properties": {"city": {"type": "string"}}}
    answer = await generate(api, response_mime_type="application/json", response_json_schema=schema)
    assert answer.text == '{"city": "東京"}'
    assert (await generate(api, stop_sequences=["東"])).text == "You said: Grüße "


@pytest.mark.parametrize(
    ("contents", "config", "told"),
    [
        ([], {}, "contents"),
        ([{"role": "assistant", "parts": [{"text": "Hi"}]}], {}, "valid role"),
        ([{"role": "user", "parts": [{"text": ""}]}], {}, "empty"),
        ([USER, CALLED, USER], {}, "number of function response parts"),
        ([USER, CALLED], {}, "function response turn"),
        ([USER, {"role": "user", "parts": [RESULT]}], {}, "number of function response parts"),
        ([CALLED, {"role": "user", "parts": [RESULT]}], {}, "immediately after a user turn"),
        (USER, {"temperature": 3}, "temperature"),
        (USER, {"top_p": 2}, "top_p"),
        (USER, {"candidate_count": 9}, "candidate_count"),
        (USER, {"stop_sequences": ["1", "2", "3", "4", "5", "6"]}, "5 stop sequences"),
        (USER, {"response_json_schema": {"type": "object"}}, "mime type"),
        (USER, {"logprobs": 2}, "response_logprobs"),
        (USER, {"thinking_config": {"thinking_level": "LOW"}}, "Thinking level"),
        (USER, {"tool_config": {"function_calling_config": {"mode": "ANY"}}}, "function_declarations"),
        (
            USER,
            {
                **TOOLS,
                "tool_config": {
                    "function_calling_config": {"mode": "AUTO", "allowed_function_names": ["get_time"]}
                },
            },
            "mode must be ANY",
        ),
        (
            USER,
            {
                **TOOLS,
                "tool_config": {
                    "function_calling_config": {"mode": "ANY", "allowed_function_names": ["other"]}
                },
            },
            "undeclared",
        ),
        (USER, {"tools": [{"functionDeclarations": [{"name": "get weather"}]}]}, "Invalid function name"),
    ],
)
async def test_it_refuses_what_is_not_valid(
    api: GeminiApi, contents: Any, config: dict[str, Any], told: str
) -> None:
    if contents == []:  # which the client does not let pass
        with pytest.raises(errors.ClientError) as refused:
            async with client_of(api) as client:
                await client._api_client.async_request(
                    "post", f"models/{MODEL}:generateContent", {"contents": []}
                )
    else:
        with pytest.raises(errors.ClientError) as refused:
            await generate(api, contents, **config)
    assert (refused.value.code, refused.value.status) == (400, "INVALID_ARGUMENT")
    assert told in str(refused.value.message)
    assert not api.script.bodies


async def test_a_call_of_the_third_generation_needs_its_signature(api: GeminiApi) -> None:
    contents = [USER, CALLED, {"role": "user", "parts": [RESULT]}]
    await generate(api, contents)
    with pytest.raises(errors.ClientError, match="thought_signature"):
        await generate(api, contents, "gemini-3-pro")


async def test_it_needs_the_key_a_model_and_known_fields(api: GeminiApi) -> None:
    async with client_of(api, "wrong") as client:
        with pytest.raises(errors.ClientError) as refused:
            await client.models.generate_content(model=MODEL, contents="Hi")
    assert refused.value.details["error"]["details"][0]["reason"] == "API_KEY_INVALID"
    with pytest.raises(errors.ClientError) as refused:
        await generate(api, model="gpt-7")
    assert refused.value.code == 404
    body: Any = {"contents": [USER], "generationConfig": {"maxTokens": 1}}
    async with client_of(api) as client:
        with pytest.raises(errors.ClientError, match='Unknown name "maxTokens" at'):
            await client._api_client.async_request("post", f"models/{MODEL}:generateContent", body)


async def test_it_fails_as_it_is_told(api: GeminiApi) -> None:
    api.script.refusal = Refused(429, "RESOURCE_EXHAUSTED", "Quota exceeded")
    with pytest.raises(errors.ClientError) as refused:
        await generate(api)
    assert (refused.value.code, refused.value.status) == (429, "RESOURCE_EXHAUSTED")
    api.script.refusal, api.script.fails_after = None, 2
    with pytest.raises(errors.ServerError, match="UNAVAILABLE"):
        await listen(api)
    api.script.fails_after, api.script.cuts_after = None, 2
    with pytest.raises(aiohttp.ClientPayloadError):
        await listen(api)
    api.script.cuts_after, api.block_reason = None, "SAFETY"
    assert (await generate(api)).prompt_feedback.block_reason == types.BlockedReason.SAFETY
    (blocked,) = await listen(api)
    assert blocked.prompt_feedback.block_reason == types.BlockedReason.SAFETY


async def test_it_notes_who_leaves(api: GeminiApi) -> None:
    api.script.permits = asyncio.Semaphore(2)
    async with serve(api) as url:
        address = f"{url}/v1/models/{MODEL}:streamGenerateContent?alt=sse"
        headers = {"x-goog-api-key": "secret"}  # their own client keeps the connection
        async with (
            aiohttp.ClientSession() as session,
            session.post(address, json={"contents": [USER]}, headers=headers) as answer,
        ):
            await answer.content.readany()
        async with asyncio.timeout(5):
            await api.script.left.wait()
