"""What is found in an image."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Point:
    """A place in an image, in pixels from its top left corner."""

    x: float
    y: float


@dataclass(frozen=True, slots=True)
class TextLine:
    """A line of text, how sure the model is of it (0 to 1), and its corners clockwise from the top left."""

    text: str
    score: float
    box: Sequence[Point]


@dataclass(frozen=True, slots=True)
class Reading:
    """The text of an image, and the image's size in pixels."""

    width: int
    height: int
    lines: Sequence[TextLine]

    @property
    def text(self) -> str:
        """All lines, joined by line feeds."""
        return "\n".join(line.text for line in self.lines)


@dataclass(frozen=True, slots=True)
class Analysis:
    """The reading of an image for one request."""

    id: str
    request_id: str
    account: str
    model: str
    reading: Reading
    created_at: datetime
