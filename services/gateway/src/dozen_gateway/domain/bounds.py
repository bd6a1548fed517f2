"""The most that a request can use, from what is known before it runs.

A bound is never below what the request will use, so that no hold is too small:

- A token of a byte-level vocabulary is at least one byte of UTF-8, and JSON writes no text in fewer bytes
  than that. What a chat template adds beyond the bytes of the JSON around the messages is `TEMPLATE_TOKENS`.
- The prompt and the answer of one choice fit into the model's context together.
- A recording has at least four kilobits a second; the service refuses one with less.
"""

from collections.abc import Mapping
from typing import NamedTuple

TEMPLATE_TOKENS = 256
MEDIA_TOKENS = 16_384
"""Of a picture, where the model's context is not known."""
ANSWER_TOKENS = 16_384
"""Of an answer, where neither the client nor the model says how long it may be."""
MILLISECONDS_A_BYTE = 2
LEAST_ANSWER_TOKENS = 256
"""What an answer may have at least where its client has set no limit, should the balance pay for it."""
SHARE = 8
"""An answer without a limit takes at most one part in so many of what the account has."""

LARGEST = 10**15
"""Of tokens, choices and amounts; what is more is bounded by this."""


class Asked(NamedTuple):
    """What a request says of its size."""

    body_bytes: int
    choices: int = 1
    """Answers: prompts times choices of each."""
    max_tokens: int | None = None
    """Of one answer."""
    media_parts: int = 0
    """Parts of the content that are no text."""


class Bound(NamedTuple):
    """The most that a request can use, and what that costs."""

    input_tokens: int = 0
    units: int = 0
    """Of the unit that is neither of input nor of output, such as images."""
    answers: int = 0
    answer_tokens: int = 0
    """Most output tokens of one answer."""
    is_limited: bool = False
    """Whether the client itself has limited its answers."""
    room: int = 0
    """Tokens that the context surely has for an answer, and a few more; 0 where it is not known."""
    fixed_nano_credits: int = 0
    """Cost of all but the output."""
    token_nano_credits: int = 0
    """Cost of one output token in every answer."""

    def payable_tokens(self, affordable: int) -> int | None:
        """Give the most tokens of an answer that so many nano-credits pay for; None where not even one."""
        spare = affordable - self.fixed_nano_credits
        if spare < 0:
            return None
        if not self.token_nano_credits:
            return self.answer_tokens
        payable = spare // self.token_nano_credits
        if not self.is_limited:
            share = (affordable // SHARE - self.fixed_nano_credits) // self.token_nano_credits
            payable = min(payable, max(share, LEAST_ANSWER_TOKENS))
        return min(self.answer_tokens, payable) if payable > 0 else None

    def is_open(self, answer_tokens: int) -> bool:
        """Tell whether it is the model's context alone that limits an answer with so many tokens."""
        return self.room > 0 and not self.is_limited and answer_tokens >= self.answer_tokens

    def cost(self, answer_tokens: int) -> int:
        """Give the cost where each answer has so many tokens."""
        return self.fixed_nano_credits + self.token_nano_credits * answer_tokens

    def tokens(self, answer_tokens: int) -> int:
        """Give the tokens of input and output together."""
        return self.input_tokens + self.answers * answer_tokens

    def or_dearer(self, other: "Bound") -> "Bound":
        """Bound a request that this model or another may answer, with answers no longer than this one's."""
        return self._replace(
            input_tokens=max(self.input_tokens, other.input_tokens),
            fixed_nano_credits=max(self.fixed_nano_credits, other.fixed_nano_credits),
            token_nano_credits=max(self.token_nano_credits, other.token_nano_credits),
        )


def fits(asked: Asked, context_length: int, longest: int, *, template: bool) -> bool:
    """Tell whether a context surely holds what one of length `longest` may hold of a request; 0 is endless.

    So that what a model could have answered is never refused as too long by one that stands in for it.
    """
    if not context_length or 0 < longest <= context_length:
        return True
    if asked.max_tokens is None or asked.media_parts > 0:
        return False
    return asked.body_bytes + (TEMPLATE_TOKENS if template else 0) + asked.max_tokens <= context_length


def bound_tokens(
    asked: Asked, context_length: int, price: Mapping[str, int], *, template: bool, answers: bool
) -> Bound:
    """Bound a request that is charged in tokens.

    `template` tells whether its messages pass through a chat template, `answers` whether any output is
    generated.
    """
    choices = min(max(asked.choices, 1), LARGEST)
    tokens = asked.body_bytes + (TEMPLATE_TOKENS if template else 0)
    if asked.media_parts > 0:
        tokens += asked.media_parts * (context_length or MEDIA_TOKENS)
    if answers and context_length:
        tokens = min(tokens, context_length if template else context_length * choices)
    each_input = max(price.get("input_tokens", 0), price.get("cached_input_tokens", 0))
    if not answers:
        return Bound(input_tokens=tokens, fixed_nano_credits=min(tokens * each_input, LARGEST))
    limit = asked.max_tokens
    longest = context_length or (ANSWER_TOKENS if limit is None else LARGEST)
    return Bound(
        input_tokens=tokens,
        answers=choices,
        answer_tokens=longest if limit is None else min(max(limit, 1), longest),
        is_limited=limit is not None,
        room=max(context_length - tokens, LEAST_ANSWER_TOKENS) if context_length else 0,
        fixed_nano_credits=min(max(tokens * each_input, price.get("cache_hits", 0)), LARGEST),
        token_nano_credits=choices * price.get("output_tokens", 0),
    )


def bound_units(asked: Asked, unit: str, price: Mapping[str, int]) -> Bound:
    """Bound a request that is charged in `images`, `audio_milliseconds` or `characters`."""
    match unit:
        case "images":
            units = min(max(asked.choices, 1), LARGEST)
        case "audio_milliseconds":
            units = asked.body_bytes * MILLISECONDS_A_BYTE
        case _:
            units = asked.body_bytes
    return Bound(units=units, fixed_nano_credits=min(units * price.get(unit, 0), LARGEST))
