"""A multipart form, read as it arrives: its file is handed on and never kept."""

from collections.abc import AsyncIterator

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header

from dozen_storage.errors import InvalidUpload

_MAX_FIELDS = 16
_MAX_FIELD_BYTES = 1024


class Form:
    """A form with one file, named `file`, and small fields before and after it."""

    def __init__(self, content_type: str, body: AsyncIterator[bytes]) -> None:
        kind, options = parse_options_header(content_type)
        if kind != b"multipart/form-data" or not options.get(b"boundary"):
            raise InvalidUpload()
        self.fields: dict[str, str] = {}
        """Those that have been read so far."""
        self.filename = ""
        self.content_type = ""
        self._body = body
        self._parser = MultipartParser(
            options[b"boundary"],
            {
                "on_part_begin": self._on_part_begin,
                "on_header_field": self._on_header_field,
                "on_header_value": self._on_header_value,
                "on_header_end": self._on_header_end,
                "on_headers_finished": self._on_headers_finished,
                "on_part_data": self._on_part_data,
                "on_part_end": self._on_part_end,
                "on_end": self._on_end,
            },
        )
        self._name, self._value = bytearray(), bytearray()
        self._headers: dict[str, str] = {}
        self._field: str | None = None
        self._data = bytearray()
        self._pieces: list[bytes] = []
        self._has_file = False
        self._complete = False

    async def reach_file(self) -> None:
        """Read up to the file."""
        while not self._has_file:
            if not await self._read():
                raise InvalidUpload("The form has no file.", param="file")

    async def content(self) -> AsyncIterator[bytes]:
        """Give the file's content, and read the form to its end."""
        more = True
        while more:
            if self._pieces:
                pieces, self._pieces = self._pieces, []
                yield b"".join(pieces)
            more = await self._read()
        if self._pieces:
            yield b"".join(self._pieces)

    async def _read(self) -> bool:
        chunk = await anext(self._body, None)
        if chunk is None:
            if not self._complete:
                raise InvalidUpload("The form ends before its last boundary.")
            return False
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise InvalidUpload(f"The form cannot be read: {error}.") from error
        return True

    def _on_part_begin(self) -> None:
        self._headers = {}
        self._data.clear()

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header_end(self) -> None:
        self._headers[self._name.decode("latin-1").lower()] = self._value.decode("latin-1")
        self._name.clear()
        self._value.clear()

    def _on_headers_finished(self) -> None:
        _, options = parse_options_header(self._headers.get("content-disposition", ""))
        name = options.get(b"name", b"").decode(errors="replace")
        if b"filename" not in options:
            if len(self.fields) >= _MAX_FIELDS:
                raise InvalidUpload(f"The form has more than {_MAX_FIELDS} fields.")
            self._field = name
            return
        if name != "file" or self._has_file:
            raise InvalidUpload("The form must have one file, named `file`.", param="file")
        self.filename = options[b"filename"].decode(errors="replace")
        self.content_type = self._headers.get("content-type", "")
        self._field = None
        self._has_file = True

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._field is None:
            self._pieces.append(data[start:end])
            return
        self._data += data[start:end]
        if len(self._data) > _MAX_FIELD_BYTES:
            raise InvalidUpload(f"The field `{self._field[:64]}` is too long.")

    def _on_part_end(self) -> None:
        if self._field is not None:
            self.fields[self._field] = self._data.decode(errors="replace")

    def _on_end(self) -> None:
        self._complete = True
