"""Where an admitted request may be answered, in the order in which to try."""

from typing import NamedTuple

from dozen_chassis.admission import Admission

PEER = "peer"
"""Fact of a request that another process was admitted for and sends on: it is answered here or nowhere, and
is settled where it came from."""


class Candidate(NamedTuple):
    """A deployment that may answer, of which model, and at which price."""

    deployment: str
    model: str
    price: str


def candidates(admission: Admission) -> list[Candidate]:
    """Give the deployments of the model that was asked for, and then those of its fallbacks."""
    facts = admission.facts
    model, price = facts.get("model", ""), facts.get("price", "")
    entries = filter(None, facts.get("fallbacks", "").split(","))
    fallbacks = [Candidate(*entry.split(" ")) for entry in entries]
    named = facts.get("deployments", "")
    if fallbacks and not named:  # nothing serves the model itself at the moment
        return fallbacks
    # An admission that names no deployment is for whatever is beside the service.
    return [Candidate(name, model, price) for name in named.split(",")] + fallbacks


def is_peers(admission: Admission) -> bool:
    """Tell whether another process sends the request on."""
    return bool(admission.facts.get(PEER))


def for_peer(admission: Admission, candidate: Candidate, operation: str) -> Admission:
    """Give what another process is told of a request that it is to answer by this deployment alone."""
    return Admission(
        account=admission.account,
        key=admission.key,
        request_id=admission.request_id,
        operation=operation,
        facts={"model": candidate.model, "deployments": candidate.deployment, PEER: "1"},
    )
