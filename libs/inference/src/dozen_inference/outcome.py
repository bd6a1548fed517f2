"""What comes of a completion: followed while it runs, and settled once."""

import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import msgspec
from opentelemetry import trace
from opentelemetry.trace import SpanKind
from prometheus_client import Counter, Histogram

from dozen.credits.v1.credits_pb2 import UsageRecord
from dozen_chassis.admission import REQUEST_ID_HEADER, Admission
from dozen_chassis.errors import ServiceError
from dozen_chassis.telemetry import current_trace_headers, tracer
from dozen_inference.candidates import is_peers
from dozen_inference.departure import ClientLeft
from dozen_inference.hold import is_priced
from dozen_inference.request import CompletionRequest
from dozen_inference.streams import Tally
from dozen_inference.upstream import UNREADABLE, upstream_error
from dozen_inference.usage import Served, Usage, first_choice, read_usage, token_quantities, usage_record

log = logging.getLogger(__name__)

HISTORY_SECONDS = 0.25
"""How late what came of a request is written to the request log."""

TOKENS = Counter("dozen_inference_tokens", "Tokens that were used.", ["model", "kind"])
ERRORS = Counter("dozen_inference_errors", "Completions that ended in an error.", ["model", "code"])
FIRST_BYTE = Histogram(
    "dozen_inference_first_byte_seconds", "Time to the first event of a stream.", ["model"],
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120),
)  # fmt: skip

# Looking a label up costs more than counting.
_tokens = cache(TOKENS.labels)
_first_byte = cache(FIRST_BYTE.labels)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a completion."""

    admission: Admission
    stream: bool
    status: int
    """HTTP status that the client saw, or would have seen had it stayed."""
    ending: str
    """The upstream's finish reason, or the code of the error."""
    seconds: float
    first_byte_seconds: float | None
    quantities: dict[str, int]
    """Empty where the client was given nothing."""
    estimated: bool
    answer: bytes
    """The body of a whole answer."""
    error: ServiceError | None
    served: Served | None = None
    """None where nobody but the cache did."""

    @property
    def output_tokens(self) -> int:
        """Tokens that were generated."""
        return self.quantities.get("output_tokens", 0)

    @property
    def input_tokens(self) -> int:
        """Tokens of the prompt, cached or not."""
        return self.quantities.get("input_tokens", 0) + self.quantities.get("cached_input_tokens", 0)

    def usage_record(self) -> UsageRecord | None:
        """Give what is reported to credits: nothing where a request without a price used nothing.

        Nothing either where another process passed the request on, which reports it itself.
        """
        if is_peers(self.admission) or not (self.quantities or is_priced(self.admission)):
            return None
        return usage_record(self.admission, self.quantities, estimated=self.estimated, served=self.served)


Settle = Callable[[Outcome], Awaitable[None]]


class _Choice(msgspec.Struct):
    finish_reason: Any = None
    text: Any = None
    message: Any = None

    @property
    def written(self) -> str:
        text = self.message.get("content") if isinstance(self.message, dict) else self.text
        return text if isinstance(text, str) else ""


class _WholeAnswer(msgspec.Struct):
    choices: list[_Choice]
    usage: Any = None


class Run:
    """A completion that runs, and what is known of it by now."""

    def __init__(
        self, operation: str, admission: Admission, request: CompletionRequest, settle: Settle
    ) -> None:
        self.request = request
        self.tally = Tally(usage_asked=request.usage_asked)
        self.answer = b""
        self.begun = False
        """Whether the client is given anything; from then on the completion costs."""
        self.served = first_choice(admission)
        self._admission = admission
        self._settle = settle
        self._settled = False
        self._model = self.served.model  # of the catalogue: clients cannot make up labels
        self._span: trace.Span | None = None
        if trace.get_current_span().is_recording():  # else nobody would see it
            self._span = tracer.start_span(
                f"{operation} {self._model}",
                kind=SpanKind.CLIENT,
                attributes={"gen_ai.operation.name": operation, "gen_ai.request.model": self._model},
            )
        self._started = time.perf_counter()
        self._first_byte_seconds: float | None = None

    def headers(self) -> dict[str, str]:
        """Give the headers by which the upstream's logs and traces belong to this completion."""
        headers = {REQUEST_ID_HEADER: self._admission.request_id}
        if self._span is not None:
            with trace.use_span(self._span):
                headers |= current_trace_headers()
        return headers

    def begin(self) -> None:
        """Note that the client is about to be given something."""
        if self.begun:
            return
        self.begun = True
        self._first_byte_seconds = time.perf_counter() - self._started
        if self.request.stream:
            _first_byte(self._model).observe(self._first_byte_seconds)

    def take_whole(self, answer: bytes) -> None:
        """Take an answer that is not a stream."""
        try:
            whole = msgspec.json.decode(answer, type=_WholeAnswer)
        except UNREADABLE:
            raise upstream_error(200, answer) from None
        self.begin()
        self.answer = answer
        self.tally.usage = read_usage(whole.usage)
        if self.tally.usage is None:
            self.tally.tokens = sum(-(-len(choice.written.encode()) // 4) for choice in whole.choices)
        self.tally.finish_reason = next(
            (str(one.finish_reason) for one in whole.choices if one.finish_reason), ""
        )

    async def end(self, error: ServiceError | None = None) -> None:
        """Settle, unless that was done."""
        if self._settled:
            return
        self._settled = True
        outcome = self._outcome(error)
        self._observe(outcome)
        await self._settle(outcome)

    def _outcome(self, error: ServiceError | None) -> Outcome:
        answered = error is None or (self.begun and self.request.stream)
        return Outcome(
            admission=self._admission,
            stream=self.request.stream,
            status=200 if error is None or answered else error.http.status,
            ending=self.tally.finish_reason if error is None else error.code or error.http.type,
            seconds=time.perf_counter() - self._started,
            first_byte_seconds=self._first_byte_seconds,
            # Whoever leaves an answer that has not begun has had its prompt read all the same.
            quantities=self._quantities() if self.begun or isinstance(error, ClientLeft) else {},
            estimated=self.tally.usage is None,
            answer=self.answer,
            error=error,
            served=self.served,
        )

    def _quantities(self) -> dict[str, int]:
        counted = Usage(self.request.prompt_tokens, self.tally.tokens)
        quantities = token_quantities(self.tally.usage or counted)
        most = self.request.most_output_tokens
        if most is not None and quantities["output_tokens"] > most:  # no more than that is held for it
            log.warning("%d output tokens are charged as %d", quantities["output_tokens"], most)
            quantities["output_tokens"] = most
        return quantities

    def _observe(self, outcome: Outcome) -> None:
        for kind, amount in outcome.quantities.items():
            _tokens(self._model, kind).inc(amount)
        if outcome.error is not None:
            ERRORS.labels(self._model, type(outcome.error).code or "").inc()
        if self._span is None:
            return
        if outcome.error is None:
            self._span.set_attribute("gen_ai.response.finish_reasons", [outcome.ending])
        else:
            self._span.set_attribute("error.type", outcome.ending)
        self._span.set_attribute("gen_ai.response.model", self.served.model)
        self._span.set_attribute("gen_ai.usage.input_tokens", outcome.input_tokens)
        self._span.set_attribute("gen_ai.usage.output_tokens", outcome.output_tokens)
        self._span.end()
