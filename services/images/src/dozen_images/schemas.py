"""Bodies of the images API."""

from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel

from dozen_images.domain import Analysis


class Line(BaseModel):
    """A line of text; its corners are `[x, y]` in pixels, clockwise from the top left."""

    text: str
    score: float
    box: Sequence[tuple[float, float]]


class Usage(BaseModel):
    """What the request is charged for."""

    images: int = 1


class ImageAnalysis(BaseModel):
    """Answer of `POST /v1/images/analyses`."""

    id: str
    object: Literal["image.analysis"] = "image.analysis"
    created: int
    model: str
    text: str
    lines: Sequence[Line]
    width: int
    height: int
    usage: Usage = Usage()


def image_analysis(analysis: Analysis) -> ImageAnalysis:
    """Write the answer of `POST /v1/images/analyses`."""
    reading = analysis.reading
    return ImageAnalysis(
        id=analysis.id,
        created=int(analysis.created_at.timestamp()),
        model=analysis.model,
        text=reading.text,
        lines=[
            Line(
                text=line.text,
                score=round(line.score, 4),
                box=[(round(p.x, 1), round(p.y, 1)) for p in line.box],
            )
            for line in reading.lines
        ],
        width=reading.width,
        height=reading.height,
    )
