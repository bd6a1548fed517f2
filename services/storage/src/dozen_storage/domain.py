"""Files, and the rules for naming and cutting them."""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta

UPLOAD_PURPOSES = ("assistants", "batch", "fine-tune", "vision", "user_data", "evals")
OUTPUT_PURPOSES = ("batch_output", "result")
"""Of files that services make."""
MAX_FILENAME = 255
MAX_IDEMPOTENCY_KEY = 255
MAX_PAGE = 100
SHORTEST_LIFE = timedelta(hours=1)
LONGEST_LIFE = timedelta(days=30)

_ACCOUNT = re.compile(r"[a-z0-9]{1,32}")
_CONTENT_TYPE = re.compile(r"[\w.+-]{1,64}/[\w.+-]{1,64}", re.ASCII)
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII)
DEFAULT_CONTENT_TYPE = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class Description:
    """What somebody says of a file that is to be stored."""

    filename: str
    purpose: str
    content_type: str = DEFAULT_CONTENT_TYPE
    expires_after: timedelta | None = None

    def expires_at(self, created_at: datetime) -> datetime | None:
        """Give when a file so described expires."""
        return None if self.expires_after is None else created_at + self.expires_after


@dataclass(frozen=True, slots=True)
class File:
    """A stored file."""

    id: str
    account_id: str
    filename: str
    purpose: str
    content_type: str
    bytes: int
    sha256: str
    created_at: datetime
    expires_at: datetime | None = None

    @property
    def key(self) -> str:
        """Where its bytes are in the object store."""
        return object_key(self.account_id, self.id)

    def repeats(self, other: "File") -> bool:
        """Tell whether it is what was stored before, under another id."""
        return (self.filename, self.purpose, self.sha256) == (other.filename, other.purpose, other.sha256)


@dataclass(frozen=True, slots=True)
class Limits:
    """What uploads may take."""

    file_bytes: int
    account_bytes: int
    uploads: int
    """How many at once, in this process."""
    upload_time: timedelta


def new_file_id(now: datetime, entropy: bytes) -> str:
    """Make the id of a file; ids sort by the time of creation."""
    return f"file-{int(now.timestamp() * 1000):012x}{entropy.hex()}"


def object_key(account_id: str, file_id: str) -> str:
    """Give the key of a file's bytes; nothing that a client writes is part of it."""
    return f"{account_id}/{file_id}"


def is_account(account_id: str) -> bool:
    """Tell whether an id is an account's."""
    return _ACCOUNT.fullmatch(account_id) is not None


def plain_filename(name: str) -> str | None:
    """Give a file's name without its directories; None where it cannot be one."""
    plain = re.split(r"[/\\]", name)[-1].strip()
    if not plain or plain in (".", "..") or len(plain) > MAX_FILENAME or not plain.isprintable():
        return None
    return plain


def plain_content_type(content_type: str) -> str:
    """Give a content type without parameters; the default one where it is not valid."""
    plain = content_type.partition(";")[0].strip().lower()
    return plain if _CONTENT_TYPE.fullmatch(plain) else DEFAULT_CONTENT_TYPE


def byte_range(header: str | None, size: int) -> range | None:
    """Read a `Range` header (RFC 9110): None means the whole file, an empty range one outside of it.

    Several ranges in one header, and other units, are answered with the whole file, as the RFC allows.
    """
    found = _RANGE.fullmatch(header or "")
    if found is None or found[0] == "bytes=-":
        return None
    first, last = found.groups()
    if not first:
        return range(max(0, size - int(last)), size)
    if last and int(last) < int(first):
        return None
    return range(int(first), min(int(last) + 1, size) if last else size)
