"""The models that only the journeys have: one out of order, one elsewhere, one with a content filter."""

from collections.abc import Mapping, Sequence
from typing import Any

from dozen_local.layout import HOST, LLAMA_MODEL, Layout

OUT_OF_ORDER = "journeys/out-of-order"
"""Its server is dead; another model answers in its place."""
ELSEWHERE = "journeys/elsewhere"
"""Served by two deployments at a URL, under another name."""
FILTERED = "journeys/filtered"

PRICES = {
    OUT_OF_ORDER: {"input_tokens": 90_000, "output_tokens": 90_000},
    ELSEWHERE: {"input_tokens": 1_000, "cached_input_tokens": 1_000, "output_tokens": 3_000},
    FILTERED: {"input_tokens": 10, "output_tokens": 10},
}

_DEAD = f"http://{HOST}:1"  # where nobody listens who is not the system's administrator


def further_models(layout: Layout) -> Sequence[Mapping[str, Any]]:
    """Give the models of the journeys, for a deployment."""
    llama = f"http://{HOST}:{layout.llama_port}"
    return [
        _model(OUT_OF_ORDER, layout, {"out-of-order": {"url": _DEAD}}, fallbacks=[ELSEWHERE]),
        _model(
            ELSEWHERE,
            layout,
            {
                "elsewhere-1": {"url": llama, "model": LLAMA_MODEL},
                "elsewhere-2": {"url": llama, "model": LLAMA_MODEL, "max_requests": 1},
            },
        ),
        _model(FILTERED, layout, {"filtered": {"model": LLAMA_MODEL}}, content_filter=True),
    ]


def _model(
    model: str, layout: Layout, upstreams: Mapping[str, Mapping[str, Any]], **policies: Any
) -> Mapping[str, Any]:
    return {
        "id": model,
        "owned_by": "journeys",
        "capabilities": ["chat"],
        "context_length": 2048,
        "prices": PRICES[model],
        "deployments": [
            {
                "id": name,
                "service": "chat",
                "address": layout.http_address("chat"),
                "priority": 1,
                "weight": 3 if number == 0 else 1,
                "upstream": upstream,
            }
            for number, (name, upstream) in enumerate(upstreams.items())
        ],
        **policies,
    }
