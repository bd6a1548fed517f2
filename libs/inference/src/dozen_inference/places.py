"""Where deployments are, and what stands between us and each of them."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from dozen_chassis.admission import Admission
from dozen_inference.breakers import Breaker, Terms
from dozen_inference.bulkheads import Bulkhead
from dozen_inference.candidates import is_peers
from dozen_inference.formats.table import FORMATS
from dozen_inference.formats.wire import Format
from dozen_inference.http1 import HttpClient
from dozen_inference.upstream import Upstream

log = logging.getLogger(__name__)

_OPENAI = FORMATS["openai"]


@dataclass(frozen=True, slots=True)
class Deployment:
    """A deployment as the catalogue has it."""

    id: str
    model: str
    address: str
    """Base URL of the service in whose pod it is."""
    format: str = ""
    url: str = ""
    """Base URL of the server; empty where that is in the pod."""
    upstream_model: str = ""
    """What the server calls the model; empty where it is the same."""
    secret: str = ""
    """Name of the provider's key."""
    max_requests: int = 0
    """Zero where the service decides."""

    @property
    def where(self) -> tuple[str, str, str]:
        """Tell what is asked, and how."""
        return self.address, self.format, self.url


class Link(NamedTuple):
    """How to ask a deployment."""

    upstream: Upstream
    format: Format
    model: str
    secret: str
    is_peer: bool
    """Whether another process passes the request on to it."""


class Place:
    """What is known of one deployment."""

    def __init__(self, most_requests: int, terms: Terms) -> None:
        self.bulkhead = Bulkhead(most_requests)
        self.breaker = Breaker(terms)
        self.first_byte_seconds = 0.0
        self.ended = 0
        self.failed = 0

    def observe_first_byte(self, seconds: float) -> None:
        """Take a time into the average, which rises at once and falls slowly (peak EWMA)."""
        known = self.first_byte_seconds
        self.first_byte_seconds = seconds if seconds > known else known + 0.1 * (seconds - known)


class Places:
    """Knows the deployments of the catalogue, and which of them are in this pod."""

    def __init__(
        self,
        client: HttpClient,
        own_url: str,
        own: frozenset[str],
        *,
        most_requests: int,
        idle_seconds: float,
        terms: Terms | None = None,
    ) -> None:
        """`own` are the deployments beside this process; empty, all are that have no URL of their own."""
        self._client = client
        self._own_ids = own
        self._most_requests = most_requests
        self._idle_seconds = idle_seconds
        self._terms = terms or Terms()
        self.own = Upstream(own_url, client, idle_seconds)
        """The server in this pod."""
        self._own_link = Link(self.own, _OPENAI, "", "", is_peer=False)
        self._known: dict[str, Deployment] = {}
        self._links: dict[str, Link | None] = {}
        self._places: dict[str, Place] = {}

    def learn(self, deployments: Mapping[str, Deployment]) -> None:
        """Take over the catalogue, whole; what is known of a deployment is for where it was."""
        for id, before in self._known.items():
            now = deployments.get(id)
            if now is None or now.where != before.where:
                self._places.pop(id, None)
        self._known = dict(deployments)
        self._links.clear()
        for id, place in self._places.items():
            place.bulkhead.most = self._most(id)

    def place(self, deployment: str) -> Place:
        """Give what is known of a deployment."""
        place = self._places.get(deployment)
        if place is None:
            place = self._places[deployment] = Place(self._most(deployment), self._terms)
        return place

    def places(self) -> Mapping[str, Place]:
        """Give all that were asked so far, by the id of the deployment."""
        return self._places

    def link(self, deployment: str, admission: Admission) -> Link | None:
        """Tell how to ask a deployment; None where it is not in the catalogue.

        Until anything is, all are taken to be beside this process. A request that another process has
        passed on is never passed on again.
        """
        link = self._link(deployment)
        return self._own_link if link is not None and link.is_peer and is_peers(admission) else link

    def telling(self, deployment: str) -> Upstream | None:
        """Give the server behind a deployment, where it may tell of its load: one that is ours."""
        link = self._link(deployment)
        if link is None or link.is_peer or link.secret or link.format is not _OPENAI:
            return None
        return link.upstream

    def _link(self, deployment: str) -> Link | None:
        try:
            return self._links[deployment]
        except KeyError:
            link = self._links[deployment] = self._find(deployment)
            return link

    def _most(self, deployment: str) -> int:
        known = self._known.get(deployment)
        return (known.max_requests if known is not None else 0) or self._most_requests

    def _find(self, deployment: str) -> Link | None:
        known = self._known.get(deployment)
        if known is None:
            return None if self._known and deployment not in self._own_ids else self._own_link
        if known.url:
            spoken = FORMATS.get(known.format or "openai")
            if spoken is None:  # of a newer catalogue
                log.error("the deployment '%s' speaks '%s', which is not known here", known.id, known.format)
                return None
            server = Upstream(known.url, self._client, self._idle_seconds)
            return Link(server, spoken, known.upstream_model, known.secret, is_peer=False)
        if not self._own_ids or deployment in self._own_ids:
            return self._own_link._replace(model=known.upstream_model)
        peer = Upstream(known.address, self._client, self._idle_seconds)
        return Link(peer, _OPENAI, "", "", is_peer=True)
