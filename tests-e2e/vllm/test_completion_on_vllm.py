"""Text completions of a real vLLM, through the real completion service, with OpenAI's own client."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from nats.aio.client import Client
from openai import BadRequestError

from dozen_completion.app import create_app
from dozen_completion.settings import Settings
from dozen_testing.http import Signer
from vllm.server import MODEL, Vllm
from vllm.stage import Stage, open_stage
from vllm.tiny_llama import CONTEXT

pytestmark = pytest.mark.integration

PACKAGE = "dozen_completion"
ENDLESS = {"ignore_eos": True}
"""Makes the model go on to the last token that it may write."""


@pytest.fixture
def signer() -> Signer:
    """Admits requests for the tiny model."""
    return Signer(b"k" * 32, facts={"model": MODEL, "deployments": "tiny-completion", "price": "price-1"})


@pytest.fixture
async def stage(
    base_settings: dict[str, Any], signer: Signer, nats_client: Client, vllm: Vllm
) -> AsyncIterator[Stage]:
    settings = Settings(**base_settings, inference_url=vllm.url, max_choices=8)
    async with open_stage("completion", create_app, settings, signer, nats_client, vllm) as stage:
        yield stage


@pytest.mark.parametrize(
    ("prompt", "prompts", "prompt_tokens"),
    [
        ("abc", 1, None),
        (["abc", "de"], 2, None),
        ([10, 11, 12], 1, 3),
        ([[10, 11], [12]], 2, 3),
    ],
)
async def test_texts_and_tokens_are_completed_and_charged(
    stage: Stage, prompt: Any, prompts: int, prompt_tokens: int | None
) -> None:
    answer = await stage.client.completions.create(
        model=MODEL, prompt=prompt, max_tokens=4, extra_body=ENDLESS
    )
    assert [choice.index for choice in answer.choices] == list(range(prompts))
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 4 * prompts
    if prompt_tokens is not None:
        assert answer.usage.prompt_tokens == prompt_tokens
    assert dict((await stage.used()).quantities) == {
        "input_tokens": answer.usage.prompt_tokens,
        "output_tokens": 4 * prompts,
    }


async def test_the_prompt_is_echoed(stage: Stage) -> None:
    answer = await stage.client.completions.create(model=MODEL, prompt="abc", max_tokens=2, echo=True)
    assert answer.choices[0].text.startswith("abc")


async def test_a_stream_ends_with_its_usage(stage: Stage) -> None:
    stream = await stage.client.completions.create(
        model=MODEL,
        prompt="abc",
        max_tokens=6,
        stream=True,
        stream_options={"include_usage": True},
        extra_body=ENDLESS,
    )
    chunks = [chunk async for chunk in stream]
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 6
    assert (await stage.used()).quantities["output_tokens"] == 6


async def test_log_probabilities_come_through(stage: Stage) -> None:
    answer = await stage.client.completions.create(
        model=MODEL, prompt="abc", max_tokens=3, logprobs=2, extra_body=ENDLESS
    )
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert len(logprobs.token_logprobs or []) == 3


async def test_what_vllm_cannot_do_is_said_in_its_words(stage: Stage) -> None:
    with pytest.raises(BadRequestError, match="suffix"):
        await stage.client.completions.create(model=MODEL, prompt="abc", suffix="def", max_tokens=2)


async def test_a_prompt_beyond_the_context_is_the_clients_mistake(stage: Stage) -> None:
    with pytest.raises(BadRequestError) as raised:
        await stage.client.completions.create(model=MODEL, prompt=[10] * (CONTEXT + 1), max_tokens=2)
    assert raised.value.code == "context_length_exceeded"
