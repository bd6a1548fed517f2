"""The templates, and how amounts and times are written in them."""

import functools
import hashlib
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from dozen_admin.domain.keys import Budget, RateLimits

_HOME = Path(__file__).parent.parent
STATIC = _HOME / "static"

_NANO = 10**9

# Units in the order in which they are written; how many a price is shown for, so that people can read it.
_UNITS = {
    "input_tokens": (10**6, "per million input tokens"),
    "cached_input_tokens": (10**6, "per million cached input tokens"),
    "output_tokens": (10**6, "per million output tokens"),
    "cache_hits": (1000, "per thousand answers from the cache"),
    "images": (1, "per image"),
    "audio_milliseconds": (60_000, "per minute of audio"),
    "characters": (10**6, "per million characters"),
}


class Pages:
    """Renders templates."""

    def __init__(self) -> None:
        self._environment = Environment(
            loader=FileSystemLoader(_HOME / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters.update(
            credits=credits,
            number=number,
            quantities=quantities,
            prices=prices,
            limits=limits,
            budget=budget,
            moment=moment,
            lasted=lasted,
        )
        self._environment.globals.update(asset=_asset)

    def render(self, template: str, **values: Any) -> HTMLResponse:
        """Render a template as the answer to a request."""
        return HTMLResponse(self._environment.get_template(template).render(**values))


def credits(nano_credits: int) -> str:
    """Write nano-credits as credits, exactly, with two decimals at least."""
    whole, fraction = divmod(abs(nano_credits), _NANO)
    sign = "−" if nano_credits < 0 else ""
    return f"{sign}{whole:,}.{f'{fraction:09}'.rstrip('0').ljust(2, '0')}"


def number(count: int) -> str:
    """Write a count."""
    return f"{count:,}"


def quantities(amounts: Mapping[str, int]) -> str:
    """Write quantities in the words of their units, such as `1,200 input tokens, 1 image`."""
    return ", ".join(_quantity(unit, amounts[unit]) for unit in sorted(amounts, key=_place))


def prices(nano_credits: Mapping[str, int]) -> list[tuple[str, str]]:
    """Write the price of each unit: the credits, and for what."""
    written = []
    for unit in sorted(nano_credits, key=_place):
        count, what = _UNITS.get(unit, (1, f"per unit of {_words(unit)}"))
        written.append((credits(nano_credits[unit] * count), what))
    return written


def limits(bounds: RateLimits) -> list[str]:
    """Write the rate limits that there are."""
    written = (
        (bounds.requests_per_minute, "requests a minute"),
        (bounds.tokens_per_minute, "tokens a minute"),
        (bounds.concurrent_requests, "at once"),
    )
    return [f"{number(most)} {what}" for most, what in written if most is not None]


def budget(most: Budget) -> str:
    """Write what may be spent."""
    return f"{credits(most.nano_credits)} {'a month' if most.period == 'month' else 'in total'}"


def moment(time: datetime) -> Markup:
    """Write a time in UTC to the second."""
    template = Markup('<time datetime="{}">{}</time>')
    return template.format(time.isoformat(timespec="seconds"), f"{time:%Y-%m-%d %H:%M:%S}")


def lasted(since: datetime, now: datetime) -> str:
    """Write how long something has lasted, in its largest unit."""
    seconds = max(timedelta(), now - since) // timedelta(seconds=1)
    for unit, size in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        if count := seconds // size:
            return f"{count} {unit}{'s' if count > 1 else ''}"
    return "less than a minute"


def _place(unit: str) -> tuple[int, str]:
    return (list(_UNITS).index(unit) if unit in _UNITS else len(_UNITS), unit)


def _words(unit: str) -> str:
    return unit.replace("_", " ")


def _quantity(unit: str, amount: int) -> str:
    if unit == "audio_milliseconds":
        return f"{amount // 1000:,}.{amount % 1000:03} s of audio"
    words = _words(unit)
    return f"{amount:,} {words.removesuffix('s') if amount == 1 else words}"


@functools.cache
def _asset(name: str) -> str:
    """Give the address of a static file, which changes with the file."""
    return f"/static/{name}?v={hashlib.sha256((STATIC / name).read_bytes()).hexdigest()[:12]}"
