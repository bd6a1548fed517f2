"""The real text recognition model, on images drawn here."""

import io
import zlib
from typing import Any

import pytest
from PIL import Image, ImageDraw, ImageFont

from dozen_images.errors import ImageTooLarge, UnreadableImage
from dozen_images.reader import PaddleReader

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def reader() -> PaddleReader:
    return PaddleReader(threads=1, max_pixels=10_000_000)


def drawn(
    *lines: str, size: tuple[int, int] = (700, 200), mode: str = "RGB", back: Any = "white"
) -> Image.Image:
    image = Image.new(mode, size, back)
    for row, line in enumerate(lines):
        ImageDraw.Draw(image).text((30, 30 + 70 * row), line, "black", ImageFont.load_default(36))
    return image


def encoded(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def test_text_is_read_with_its_place(reader: PaddleReader) -> None:
    reading = reader.read(reader.decode(encoded(drawn("Invoice No. 2026", "Total due: $373.60"))))
    assert reading.text == "Invoice No. 2026\nTotal due: $373.60"
    assert (reading.width, reading.height) == (700, 200)
    first, second = reading.lines
    assert first.score > 0.9
    assert first.box[0].x == pytest.approx(30, abs=10)
    assert first.box[2].y < second.box[0].y


def test_places_in_a_large_image_are_in_its_own_pixels(reader: PaddleReader) -> None:
    image = encoded(drawn("Hello").resize((2800, 800)), "JPEG")
    reading = reader.read(reader.decode(image))
    assert reading.text == "Hello"
    assert (reading.width, reading.height) == (2800, 800)
    assert reading.lines[0].box[0].x == pytest.approx(120, abs=40)


def test_an_image_without_text_has_none(reader: PaddleReader) -> None:
    assert reader.read(reader.decode(encoded(drawn()))).text == ""


def test_black_text_on_nothing_is_seen(reader: PaddleReader) -> None:
    image = drawn("Transparent", mode="RGBA", back=(0, 0, 0, 0))
    assert reader.read(reader.decode(encoded(image))).text == "Transparent"


def test_an_image_taken_lying_is_turned_upright(reader: PaddleReader) -> None:
    turned = Image.Exif()
    turned[0x112] = 6
    image = encoded(drawn("Upright").rotate(90, expand=True), "JPEG", exif=turned)
    reading = reader.read(reader.decode(image))
    assert reading.text == "Upright"
    assert (reading.width, reading.height) == (700, 200)


def test_too_many_pixels_are_refused_before_they_are_unpacked(reader: PaddleReader) -> None:
    bomb = encoded(Image.new("1", (4000, 4000)))
    assert len(bomb) < 10_000
    with pytest.raises(ImageTooLarge):
        reader.decode(bomb)


@pytest.mark.parametrize(
    "data",
    [b"", b"GIF89a", b"%PDF-1.4", b"\x89PNG\r\n\x1a\n" + zlib.compress(b"x"), encoded(drawn("cut"))[:300]],
)
def test_what_is_no_image_is_refused(reader: PaddleReader, data: bytes) -> None:
    with pytest.raises(UnreadableImage):
        reader.decode(data)
