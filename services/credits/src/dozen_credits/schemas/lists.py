"""What all lists have."""

from collections.abc import Sequence


def ends(ids: Sequence[str]) -> dict[str, str | None]:
    """Give the fields that name the first and the last item."""
    return {"first_id": ids[0] if ids else None, "last_id": ids[-1] if ids else None}
