"""The first five calls of the README, with the official client and a real model."""

from openai import AsyncOpenAI

from journey import CHAT_MODEL


async def test_a_question_is_answered(client: AsyncOpenAI) -> None:
    raw = await client.chat.completions.with_raw_response.create(
        model=CHAT_MODEL,
        messages=[{"role": "user", "content": "Which city is the capital of France?"}],
        temperature=0,
        max_tokens=24,
    )
    answer = raw.parse()
    assert "Paris" in (answer.choices[0].message.content or "")
    assert answer.usage
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert raw.headers["x-request-id"].startswith("req_")


async def test_an_answer_comes_in_pieces(client: AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        model=CHAT_MODEL,
        messages=[{"role": "user", "content": "Count from one to ten."}],
        temperature=0,
        max_tokens=24,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = [chunk async for chunk in stream]
    text = [
        chunk.choices[0].delta.content for chunk in chunks if chunk.choices and chunk.choices[0].delta.content
    ]
    assert len(text) > 5
    assert len({chunk.id for chunk in chunks}) == 1
    assert [chunk for chunk in chunks if chunk.choices][-1].choices[0].finish_reason in ("stop", "length")
    assert chunks[-1].usage
    assert chunks[-1].usage.completion_tokens >= len(text)


async def test_a_text_is_continued(client: AsyncOpenAI) -> None:
    answer = await client.completions.create(
        model=CHAT_MODEL, prompt="The sun rises in the", max_tokens=4, temperature=0
    )
    assert answer.choices[0].text.strip()
    assert answer.usage
    assert answer.usage.completion_tokens <= 4


async def test_texts_of_like_meaning_have_like_vectors(client: AsyncOpenAI) -> None:
    texts = [
        "How do I reset my password?",
        "I forgot my login credentials.",
        "The cat sat on the windowsill.",
    ]
    answer = await client.embeddings.create(model="all-minilm-l6-v2", input=texts)
    password, login, cat = (item.embedding for item in answer.data)
    similar = sum(a * b for a, b in zip(password, login, strict=True))
    different = sum(a * b for a, b in zip(password, cat, strict=True))
    assert similar > 0.5 > 0.2 > different


async def test_the_models_are_listed(client: AsyncOpenAI) -> None:
    models = [model.id async for model in client.models.list()]
    assert CHAT_MODEL in models
    assert (await client.models.retrieve(CHAT_MODEL)).object == "model"
