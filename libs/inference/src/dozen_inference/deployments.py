"""Completions from the first deployment that can answer."""

import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

from prometheus_client import Counter

from dozen_chassis.admission import Admission
from dozen_chassis.errors import ServiceError
from dozen_inference.attempts import Attempt, Opened, attempted
from dozen_inference.breakers import State
from dozen_inference.budget import RetryBudget, RetryBudgets
from dozen_inference.candidates import Candidate, candidates, for_peer
from dozen_inference.generation import UpstreamOverloaded
from dozen_inference.places import Link, Place, Places
from dozen_inference.provider_keys import ProviderKeys
from dozen_inference.request import CompletionRequest
from dozen_inference.upstream import raw_headers
from dozen_inference.usage import Served
from dozen_inference.verdicts import RETRY_AFTER, NoneUsable, Verdict, most_telling, whole_seconds

DENIED = Counter("dozen_inference_retries_denied", "Retries for which there was no budget.", ["model"])

SHOULD_RETRY = "x-should-retry"
"""OpenAI's clients, which else try twice again, keep to it."""

_PEER_SECONDS = 60
"""Lifetime of the admission of a request that is sent on."""

Ended = list[tuple[Verdict, ServiceError]]


class Deployments:
    """Asks the deployments of an admission in their order, until one has begun to answer."""

    def __init__(
        self,
        places: Places,
        keys: ProviderKeys,
        sign_for_peer: Callable[[Admission, int], Mapping[str, str]],
    ) -> None:
        """`sign_for_peer` gives the headers of an admission that lives until a Unix time."""
        self._places = places
        self._keys = keys
        self._sign = sign_for_peer
        self._budgets = RetryBudgets()

    @asynccontextmanager
    async def open(
        self,
        admission: Admission,
        request: CompletionRequest,
        path: str,
        headers: Mapping[str, str],
        *,
        seconds: float,
    ) -> AsyncIterator[Opened]:
        """Give the first answer that begins well, within so many seconds for all attempts together.

        Raise the most telling error where none does. What fails after the block was entered is the
        caller's to handle: another deployment would say again what was said.
        """
        deadline = time.monotonic() + seconds
        model = admission.facts.get("model", "")
        budget = self._budgets[model]
        budget.earn()
        ended: Ended = []
        attempts, burdened = 0, False
        left = candidates(admission)
        while left:
            candidate = left.pop(0)
            link = self._places.link(candidate.deployment, admission)
            place = self._places.place(candidate.deployment)
            entered = _enter(place, link, candidate.deployment, ended)
            if link is None or not entered:
                continue
            if burdened and not budget.spend():
                place.bulkhead.leave()
                place.breaker.leave(entered, None)
                DENIED.labels(model).inc()
                break
            attempts += 1
            served = Served(candidate.deployment, candidate.model, candidate.price, attempts)
            attempt = Attempt(place, entered, served)
            try:
                key = self._keys.read(link.secret)
                opened = await attempt.ask(
                    link,
                    link.format.request(request, path, _name(link, candidate, request), key),
                    self._headers(link, candidate, admission, path, headers),
                    key=key,
                    stream=request.stream,
                    deadline=self._until(deadline, left) if request.stream else deadline,
                )
            except ServiceError as error:
                verdict = attempt.end(error)
                if verdict is Verdict.REFUSED:
                    raise
                ended.append((verdict, error))
                burdened = burdened or verdict.burdened
                if time.monotonic() >= deadline:
                    break
                continue
            except BaseException as error:
                attempt.end(error)
                raise
            try:
                yield opened
            except BaseException as error:
                attempt.end(error)
                raise
            attempt.end(None)
            return
        raise _failure(ended, budget, model)

    def _headers(
        self, link: Link, candidate: Candidate, admission: Admission, path: str, headers: Mapping[str, str]
    ) -> Sequence[tuple[bytes, bytes]]:
        if link.is_peer:
            passed_on = for_peer(admission, candidate, f"POST {path}")
            headers = {**headers, **self._sign(passed_on, int(time.time()) + _PEER_SECONDS)}
        return raw_headers(headers)

    def _until(self, deadline: float, left: Sequence[Candidate]) -> float:
        """Give when a stream must have begun, so that one that hangs leaves the next ones their share."""
        others = sum(self._places.place(one.deployment).breaker.state is not State.OPEN for one in left)
        if not others:
            return deadline
        now = time.monotonic()
        return now + (deadline - now) / (1 + others)


def _enter(place: Place, link: Link | None, deployment: str, ended: Ended) -> int:
    """Give the pass of the breaker, with a place in the bulkhead; zero where there is none."""
    error: ServiceError
    if link is None:
        verdict, error = Verdict.UNKNOWN, NoneUsable(headers={RETRY_AFTER: "1"})
    elif not place.bulkhead.enter():
        verdict, error = Verdict.FULL, UpstreamOverloaded(headers={RETRY_AFTER: "1"})
    elif entered := place.breaker.enter():
        return entered
    else:
        place.bulkhead.leave()
        wait = whole_seconds(place.breaker.wait())
        verdict, error = Verdict.OPEN, NoneUsable(headers={RETRY_AFTER: wait})
    attempted(deployment, verdict.value).inc()
    ended.append((verdict, error))
    return 0


def _name(link: Link, candidate: Candidate, request: CompletionRequest) -> str:
    """Give what the model is called there: a fallback is not what the client asked for."""
    return link.model or candidate.model or request.model


def _failure(ended: Ended, budget: RetryBudget, model: str) -> ServiceError:
    """Give the most telling error.

    Where an upstream had work with it and failed, the client's own retry is paid from the budget too, or
    asked not to be made. Where a breaker or a bulkhead has kept us from asking, a retry costs little.
    """
    verdict, error = most_telling(ended)
    if verdict.failed and verdict.burdened and not budget.spend():
        DENIED.labels(model).inc()
        error.headers[SHOULD_RETRY] = "false"
    return error
