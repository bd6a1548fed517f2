"""The field `model` of a form, found while the form passes by."""

from typing import TYPE_CHECKING

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

_MOST_PARTS = 100
_MOST_MODEL_BYTES = 1024


class ModelField:
    """Picks the field `model` out of a form, and keeps nothing else of it."""

    def __init__(self) -> None:
        self._parts = 0
        self._header = b""
        self._value = b""
        self._is_model = False
        self._models: list[bytes] = []
        self._complete = False

    def callbacks(self) -> "MultipartCallbacks":
        """Give the callbacks for the parser."""
        return {
            "on_part_begin": self._on_part_begin,
            "on_header_field": self._on_header_field,
            "on_header_value": self._on_header_value,
            "on_header_end": self._on_header_end,
            "on_part_data": self._on_part_data,
            "on_end": self._on_end,
        }

    def model(self) -> str:
        """Give the model; empty where the form names none."""
        # Two of them could be read as one by us and as the other by the service.
        if not self._complete or len(self._models) > 1:
            raise FormParserError
        return self._models[0].decode() if self._models else ""

    def _on_part_begin(self) -> None:
        self._parts += 1
        self._is_model = False
        if self._parts > _MOST_PARTS:
            raise FormParserError

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            _, options = parse_options_header(self._value)
            if options.get(b"name") == b"model":
                self._is_model = True
                self._models.append(b"")
        self._header = self._value = b""

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._is_model:
            self._models[-1] += data[start:end]
            if len(self._models[-1]) > _MOST_MODEL_BYTES:
                raise FormParserError

    def _on_end(self) -> None:
        self._complete = True
