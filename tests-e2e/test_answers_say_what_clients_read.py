"""Headers, the list of models and moderations, as the official client reads them."""

from collections.abc import Mapping

import openai
import pytest

from catalogue import ELSEWHERE, PRICES
from dozen.gateway.v1.gateway_pb2 import RateLimits
from dozen.gateway.v1.gateway_service_pb2 import KeyTerms
from journey import CHAT_MODEL, HELLO, NANO_CREDITS, Access, Operator

LIMITS = RateLimits(requests_per_minute=600, tokens_per_minute=100_000)


async def test_every_answer_has_the_headers(access: Access, operator: Operator) -> None:
    account = await operator.open_account(NANO_CREDITS)
    key = await operator.create_key(account, KeyTerms(name="limited", limits=LIMITS))
    async with access.openai(key) as client:
        creating = client.chat.completions.with_raw_response
        plain = await creating.create(model=CHAT_MODEL, messages=HELLO, max_tokens=4)
        streamed = await creating.create(model=CHAT_MODEL, messages=HELLO, max_tokens=4, stream=True)
        assert [chunk async for chunk in streamed.parse()]
        responded = await client.responses.with_raw_response.create(
            model=CHAT_MODEL, input="Hello", max_output_tokens=4
        )
    answers = [plain.headers, streamed.headers, responded.headers]
    for headers in answers:
        _check(headers)
    assert streamed.headers["content-type"].startswith("text/event-stream")
    assert streamed.headers["cache-control"] == "no-cache"
    rows = await access.charged(account.key, 3)
    assert {row["request_id"] for row in rows} == {headers["x-request-id"] for headers in answers}


def _check(headers: Mapping[str, str]) -> None:
    assert headers["x-request-id"].startswith("req_")
    assert int(headers["openai-processing-ms"]) >= 0
    assert headers["x-dozen-model"] == CHAT_MODEL
    assert headers["x-dozen-deployment"] == "smollm2-chat"
    assert headers["x-ratelimit-limit-requests"] == "600"
    assert headers["x-ratelimit-limit-tokens"] == "100000"
    assert 0 < int(headers["x-ratelimit-remaining-requests"]) < 600
    assert 0 < int(headers["x-ratelimit-remaining-tokens"]) < 100_000
    assert headers["x-ratelimit-reset-requests"].endswith("s")


async def test_a_key_sees_the_models_that_it_may_use(access: Access, operator: Operator) -> None:
    account = await operator.open_account(NANO_CREDITS)
    key = await operator.create_key(account, KeyTerms(name="one model", models=[ELSEWHERE]))
    async with access.openai(account.key) as every, access.openai(key) as one:
        assert {CHAT_MODEL, ELSEWHERE} < {model.id async for model in every.models.list()}
        assert [model.id async for model in one.models.list()] == [ELSEWHERE]
        model = (await one.models.retrieve(ELSEWHERE)).model_dump()
        assert (model["id"], model["pricing"]) == (ELSEWHERE, PRICES[ELSEWHERE])
        assert (model["context_length"], model["capabilities"]) == (2048, ["chat"])
        with pytest.raises(openai.NotFoundError):
            await one.models.retrieve(CHAT_MODEL)
        with pytest.raises((openai.PermissionDeniedError, openai.NotFoundError)) as refused:
            await one.chat.completions.create(model=CHAT_MODEL, messages=HELLO)
        assert refused.value.param == "model"


async def test_a_harmful_text_is_flagged(access: Access, operator: Operator) -> None:
    account = await operator.open_account(0)  # it is free
    async with access.openai(account.key) as client:
        texts = [
            "The train leaves at seven in the morning.",
            "All members of that religion should be killed.",
        ]
        harmless, harmful = (await client.moderations.create(input=texts)).results
    assert (harmless.flagged, harmful.flagged) == (False, True)
    assert harmful.categories.hate or harmful.categories.hate_threatening
