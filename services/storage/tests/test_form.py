"""Forms, read in pieces of any size."""

from collections.abc import AsyncIterator

import pytest

from dozen_storage.errors import InvalidUpload
from dozen_storage.form import Form

CONTENT_TYPE = "multipart/form-data; boundary=xyz"
CONTENT = bytes(range(256)) * 8 + b"\r\n--xy\r\n--xyq"


def part(headers: str, value: bytes) -> bytes:
    return f"--xyz\r\n{headers}\r\n\r\n".encode() + value + b"\r\n"


PURPOSE = part('Content-Disposition: form-data; name="purpose"', b"batch")
FILE = part(
    'Content-Disposition: form-data; name="file"; filename="Mäuse.txt"\r\nContent-Type: text/plain', CONTENT
)
END = b"--xyz--\r\n"


async def body(data: bytes, size: int = 64) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


@pytest.mark.parametrize("size", [1, 2, 7, 64, 100_000])
@pytest.mark.parametrize("data", [PURPOSE + FILE + END, FILE + PURPOSE + END])
async def test_a_form_is_read_in_any_order_and_pieces(data: bytes, size: int) -> None:
    form = Form(CONTENT_TYPE, body(data, size))
    await form.reach_file()
    assert b"".join([chunk async for chunk in form.content()]) == CONTENT
    assert (form.filename, form.content_type) == ("Mäuse.txt", "text/plain")
    assert form.fields == {"purpose": "batch"}


async def test_the_file_is_handed_on_as_it_arrives() -> None:
    given: list[int] = []

    async def watched() -> AsyncIterator[bytes]:
        async for piece in body(PURPOSE + FILE + END):
            given.append(len(piece))
            yield piece

    form, taken = Form(CONTENT_TYPE, watched()), 0
    await form.reach_file()
    async for chunk in form.content():
        taken += len(chunk)
        assert sum(given) - taken < len(PURPOSE) + 300


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (PURPOSE + END, "no file"),
        (FILE + FILE + END, "one file"),
        (PURPOSE + FILE, "ends before"),
        (b"", "ends before"),
        (b"no form at all", "cannot be read"),
        (part('Content-Disposition: form-data; name="other"; filename="a"', b"a") + END, "one file"),
        (part('Content-Disposition: form-data; name="file"', b"no upload") + END, "no file"),
        (part('Content-Disposition: form-data; name="purpose"', b"a" * 1025) + END, "too long"),
        (b"".join(part(f'Content-Disposition: form-data; name="{n}"', b"") for n in range(17)), "16 fields"),
        (part("X-Header: " + "a" * 10_000, b""), "cannot be read"),
    ],
)
async def test_what_is_no_form_with_one_file_is_refused(data: bytes, message: str) -> None:
    form = Form(CONTENT_TYPE, body(data))

    async def read() -> None:
        await form.reach_file()
        async for _ in form.content():
            pass

    with pytest.raises(InvalidUpload, match=message):
        await read()


@pytest.mark.parametrize("content_type", ["", "application/json", "multipart/form-data"])
def test_another_content_type_is_refused(content_type: str) -> None:
    with pytest.raises(InvalidUpload):
        Form(content_type, body(b""))
