"""Request bodies: what is checked, what is added, and what is left alone."""

import json
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dozen_chassis.errors import InvalidRequest
from dozen_inference.request import CompletionRequest, prepare

MESSAGES = [{"role": "user", "content": "héllo"}]


Prompt = Literal["messages", "prompt"]
LIMITS = "max_completion_tokens", "max_tokens", "n_predict"


def read(
    body: dict[str, Any], prompt: Prompt = "messages", choices: int = 1, most_tokens: int | None = None
) -> CompletionRequest:
    return prepare(json.dumps(body).encode(), prompt, most_choices=choices, most_tokens=most_tokens)


def test_the_body_of_a_whole_answer_is_sent_as_it_came() -> None:
    body = b'{ "messages": [{"role":"user"}],\n "model":"m", "temperature": 0.10, "unknown": {"b":1,"a":2} }'
    request = prepare(body, "messages", most_choices=1)
    assert request.body == body
    assert (request.model, request.stream, request.usage_asked) == ("m", False, False)


def test_a_stream_is_asked_for_its_usage_and_every_other_value_is_kept_to_the_byte() -> None:
    body = (
        b'{"model":"m","messages":[{"role":"user","content":"\\u00e9 \xc3\xa9"}],"stream":true,"top_p":0.50}'
    )
    request = prepare(body, "messages", most_choices=1)
    assert request.stream
    assert not request.usage_asked
    assert request.body == body[:-1] + b',"stream_options":{"include_usage":true}}'


def test_it_is_remembered_that_the_client_asked_for_usage_and_its_other_options_stay() -> None:
    options = {"include_usage": True, "include_obfuscation": False}
    request = read({"model": "m", "messages": MESSAGES, "stream": True, "stream_options": options})
    assert request.usage_asked
    assert json.loads(request.body)["stream_options"] == options


def test_a_client_that_declines_usage_does_not_get_it_but_we_do() -> None:
    options = {"include_usage": False}
    request = read({"model": "m", "messages": MESSAGES, "stream": True, "stream_options": options})
    assert not request.usage_asked
    assert json.loads(request.body)["stream_options"] == {"include_usage": True}


def test_where_nobody_reads_a_stream_the_answer_comes_whole() -> None:
    body = {"model": "m", "messages": MESSAGES, "stream": True, "stream_options": None, "seed": 1}
    request = prepare(json.dumps(body).encode(), "messages", most_choices=1, may_stream=False)
    assert not request.stream
    assert json.loads(request.body) == {"model": "m", "messages": MESSAGES, "seed": 1}


def test_null_is_as_good_as_absent() -> None:
    request = read({"model": "m", "messages": MESSAGES, "stream": None, "stream_options": None, "n": None})
    assert not request.stream


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"messages": MESSAGES}, "model"),
        ({"model": 5, "messages": MESSAGES}, "model"),
        ({"model": "", "messages": MESSAGES}, "model"),
        ({"model": "m" * 257, "messages": MESSAGES}, "model"),
        ({"model": "m"}, "messages"),
        ({"model": "m", "messages": "hello"}, "messages"),
        ({"model": "m", "messages": []}, "messages"),
        ({"model": "m", "messages": None}, "messages"),
        ({"model": "m", "messages": MESSAGES, "stream": "yes"}, "stream"),
        ({"model": "m", "messages": MESSAGES, "stream_options": [1]}, "stream_options"),
        ({"model": "m", "messages": MESSAGES, "n": 0}, "n"),
        ({"model": "m", "messages": MESSAGES, "n": -1}, "n"),
        ({"model": "m", "messages": MESSAGES, "n": 2}, "n"),
        ({"model": "m", "messages": MESSAGES, "n": 1.5}, "n"),
    ],
)
def test_a_wrong_body_is_refused_with_its_place(body: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        read(body)
    assert refused.value.param == param


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"text"', b"\xff", b'{"a":' + b"[" * 100_000])
def test_what_is_not_an_object_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequest, match="request body is not valid"):
        prepare(body, "messages", most_choices=1)


@pytest.mark.parametrize(
    ("prompt", "choices"),
    [("text", 1), ([1, 2, 3], 1), (["a", "b"], 2), ([[1, 2], [3]], 2), (["a"], 1)],
)
def test_every_prompt_has_its_choices(prompt: Any, choices: int) -> None:
    read({"model": "m", "prompt": prompt, "n": 3}, "prompt", 3 * choices)
    with pytest.raises(InvalidRequest, match=f"asks for {3 * choices} choices"):
        read({"model": "m", "prompt": prompt, "n": 3}, "prompt", 3 * choices - 1)


@pytest.mark.parametrize("prompt", [None, [], 5, {"a": 1}, [1.5]])
def test_a_prompt_is_text_or_tokens(prompt: Any) -> None:
    with pytest.raises(InvalidRequest) as refused:
        read({"model": "m", "prompt": prompt}, "prompt")
    assert refused.value.param == "prompt"


def test_four_bytes_of_the_prompt_are_taken_for_a_token() -> None:
    assert read({"model": "m", "prompt": "a" * 7}, "prompt").prompt_tokens == 3  # with its quotes


def asked(prompt: Prompt) -> dict[str, Any]:
    return {"model": "m", **({"messages": MESSAGES} if prompt == "messages" else {"prompt": "Once"})}


@pytest.mark.parametrize(
    ("prompt", "limits", "sent"),
    [
        ("messages", {}, {"max_completion_tokens": 9}),
        ("messages", {"max_tokens": None}, {"max_tokens": 9}),
        ("messages", {"max_tokens": 10}, {"max_tokens": 9}),
        ("messages", {"max_tokens": -1}, {"max_tokens": 9}),
        ("messages", {"max_tokens": 10**30}, {"max_tokens": 9}),
        ("messages", {"max_completion_tokens": 10}, {"max_completion_tokens": 9}),
        (
            "messages",
            {"max_completion_tokens": None, "max_tokens": 10},
            {"max_completion_tokens": None, "max_tokens": 9},
        ),
        (
            "messages",
            {"max_completion_tokens": 5, "max_tokens": 10},
            {"max_completion_tokens": 5, "max_tokens": 9},
        ),
        ("messages", {"n_predict": 10}, {"n_predict": 9, "max_completion_tokens": 9}),
        ("messages", {"n_predict": 5}, {"n_predict": 5, "max_completion_tokens": 9}),
        ("prompt", {}, {"max_tokens": 9}),
        ("prompt", {"max_tokens": 10}, {"max_tokens": 9}),
        ("prompt", {"max_completion_tokens": 5}, {"max_completion_tokens": 5, "max_tokens": 9}),
        ("prompt", {"max_completion_tokens": 10}, {"max_completion_tokens": 9, "max_tokens": 9}),
    ],
)
def test_an_answer_is_limited_in_the_fields_that_every_server_keeps_to(
    prompt: Prompt, limits: dict[str, Any], sent: dict[str, Any]
) -> None:
    request = read({**asked(prompt), **limits}, prompt, most_tokens=9)
    assert json.loads(request.body) == {**asked(prompt), **sent}
    assert request.most_output_tokens == 9


@pytest.mark.parametrize("limits", [{"max_tokens": 9}, {"max_tokens": 0}, {"max_tokens": 5, "n_predict": 9}])
@pytest.mark.parametrize("prompt", ["messages", "prompt"])
def test_a_body_within_its_limit_is_sent_as_it_came(prompt: Prompt, limits: dict[str, Any]) -> None:
    body = json.dumps({**limits, **asked(prompt)}, indent=3).encode()
    assert prepare(body, prompt, most_choices=1, most_tokens=9).body == body


@pytest.mark.parametrize("limit", ["9", 1.5, True, [1]])
@pytest.mark.parametrize("name", LIMITS)
def test_a_limit_that_is_no_number_is_refused(name: str, limit: Any) -> None:
    with pytest.raises(InvalidRequest) as refused:
        read({**asked("messages"), name: limit}, most_tokens=9)
    assert refused.value.param == name


@pytest.mark.parametrize("name", ["n", "best_of", "n_cmpl"])
def test_every_choice_has_its_tokens_by_whatever_name_it_is_asked_for(name: str) -> None:
    body = {"model": "m", "prompt": ["a", "b"], name: 3}
    assert read(body, "prompt", 6, most_tokens=9).most_output_tokens == 54
    with pytest.raises(InvalidRequest, match="asks for 6 choices"):
        read(body, "prompt", 5)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
OURS = frozenset(
    {"model", "messages", "prompt", "n", "best_of", "n_cmpl", "stream", "stream_options", *LIMITS}
)
LIMIT = st.none() | st.integers(-2, 40)


@st.composite
def bodies(draw: st.DrawFn) -> tuple[Prompt, dict[str, Any]]:
    """Give bodies with unknown fields and limits of every kind, in any order."""
    prompts: list[Prompt] = ["messages", "prompt"]
    prompt = draw(st.sampled_from(prompts))
    fields = draw(st.dictionaries(st.text().filter(lambda name: name not in OURS), JSON, max_size=4))
    fields |= asked(prompt)
    fields |= draw(st.fixed_dictionaries({}, optional=dict.fromkeys(LIMITS, LIMIT)))
    fields |= draw(st.fixed_dictionaries({}, optional={"stream": st.booleans()}))
    return prompt, {name: fields[name] for name in draw(st.permutations(sorted(fields)))}


@settings(max_examples=300, deadline=None)
@given(bodies(), st.none() | st.integers(1, 30), st.booleans(), st.sampled_from([None, 1]))
def test_only_the_limit_of_a_body_changes(
    asked: tuple[Prompt, dict[str, Any]], most: int | None, may_stream: bool, indent: int | None
) -> None:
    prompt, fields = asked
    body = json.dumps(fields, indent=indent).encode()
    request = prepare(body, prompt, most_choices=1, most_tokens=most, may_stream=may_stream)
    sent = json.loads(request.body)
    stream = fields.get("stream", False)
    if most is None or all(fields.get(name) == sent.get(name) for name in LIMITS):
        assert stream or request.body == body
    for name, value in fields.items():
        if name not in {"stream", "stream_options", *LIMITS}:
            assert (type(sent[name]), sent[name]) == (type(value), value)
    assert set(sent) - set(fields) <= {"stream_options", *LIMITS}
    assert ("stream" in sent) == ("stream" in fields and (may_stream or not stream))
    if most is not None:
        for name in LIMITS:  # each is lowered where it is above the limit, and else as it was
            if (value := fields.get(name)) is not None:
                assert sent[name] == (value if 0 <= value <= most else most)
        # llama.cpp keeps to the first of its names, vLLM to the first of OpenAI's, which it lacks for prompts
        for names in (("n_predict", "max_completion_tokens", "max_tokens"), LIMITS[prompt == "prompt" : 2]):
            kept = next(sent[name] for name in names if sent.get(name) is not None)
            assert 0 <= kept <= most


def test_a_server_whose_context_is_the_limit_is_told_none() -> None:
    body = json.dumps(asked("messages")).encode()
    request = prepare(body, "messages", most_choices=1, most_tokens=9, is_capped=False)
    assert (request.body, request.most_output_tokens) == (body, 9)
    higher = json.dumps({**asked("messages"), "n_predict": 10}).encode()
    request = prepare(higher, "messages", most_choices=1, most_tokens=9, is_capped=False)
    assert json.loads(request.body)["n_predict"] == 9
