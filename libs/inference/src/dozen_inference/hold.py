"""What the gateway holds for a request: in which lease, and for how much at most."""

from dozen_chassis.admission import Admission


def is_priced(admission: Admission) -> bool:
    """Tell whether a request is charged for what it uses; something may be held for it then."""
    return bool(admission.facts.get("price"))


def lease_id(admission: Admission) -> str:
    """Give the lease in which the request is held; empty where it is in none."""
    return admission.facts.get("reservation", "")


def most_tokens(admission: Admission) -> int | None:
    """Give the most tokens that each answer may have; None where there is no limit."""
    return _number(admission, "max-tokens")


def is_capped(admission: Admission) -> bool:
    """Tell whether the server has to be told how long an answer may be; else its own context sees to that."""
    return not admission.facts.get("uncapped")


def most_units(admission: Admission) -> int | None:
    """Give the most that the request may use, in the unit that it is charged in; None without a limit."""
    return _number(admission, "max-units")


def _number(admission: Admission, fact: str) -> int | None:
    value = admission.facts.get(fact)
    return int(value) if value else None
