"""Files are kept, text in images is read, and what is spoken is understood."""

import io

import pytest
from openai import AsyncOpenAI

from journey import Access

pillow = pytest.importorskip("PIL.Image", reason="the models of images and audio are not installed")


async def test_a_file_is_kept_and_given_back(client: AsyncOpenAI) -> None:
    content = bytes(range(256)) * 5000
    file = await client.files.create(file=("notes.bin", content), purpose="user_data")
    assert (file.bytes, file.filename) == (len(content), "notes.bin")
    assert (await client.files.content(file.id)).content == content
    assert file.id in [listed.id async for listed in client.files.list()]
    assert (await client.files.delete(file.id)).deleted


async def test_text_in_an_image_is_read(access: Access) -> None:
    from PIL import Image, ImageDraw, ImageFont

    image = Image.new("RGB", (640, 160), "white")
    ImageDraw.Draw(image).text((20, 50), "INVOICE No. 2026-0417", "black", ImageFont.load_default(40))
    png = io.BytesIO()
    image.save(png, "PNG")
    async with access.http() as http:
        response = await http.post(
            "/images/analyses", data={"model": "pp-ocrv6"}, files={"image": ("invoice.png", png.getvalue())}
        )
    assert response.is_success, response.text
    assert "2026-0417" in response.json()["text"]


async def test_what_is_spoken_is_understood(client: AsyncOpenAI) -> None:
    sentence = "Hello, and welcome to the platform."
    speech = await client.audio.speech.create(
        model="hibari", voice="alloy", input=sentence, response_format="wav"
    )
    heard = await client.audio.transcriptions.create(
        model="whisper-tiny.en", file=("speech.wav", speech.content)
    )
    assert heard.text.strip() == sentence
