"""The keys of providers, as a mounted secret has them: one file for each."""

import logging
from pathlib import Path

from dozen_chassis.errors import ServiceError, Status

log = logging.getLogger(__name__)

_MOST_BYTES = 4096


class ProviderKeyMissing(ServiceError):
    """The operator has given no key for this provider."""

    status = Status.UNAVAILABLE
    code = "provider_key_missing"


class ProviderKeys:
    """Reads keys when they are needed, and again once their file has changed; nothing else tells of them."""

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory
        self._read: dict[str, tuple[tuple[int, int, int], str]] = {}

    def read(self, name: str) -> str:
        """Give a key, empty where there is no name; raise `ProviderKeyMissing` where there is no key."""
        if not name:
            return ""
        if self._directory is None or Path(name).name != name:
            raise ProviderKeyMissing()
        path = self._directory / name
        try:
            found = path.stat()  # of what a link leads to: a mounted secret changes by another link
            version = (found.st_ino, found.st_mtime_ns, found.st_size)
            known = self._read.get(name)
            if known is None or known[0] != version:
                known = self._read[name] = (version, _key(path))
        except (OSError, ValueError):  # without a word of what is in it
            log.warning("the key '%s' of a provider cannot be read", name)
            raise ProviderKeyMissing() from None
        return known[1]


def _key(path: Path) -> str:
    with path.open("rb") as file:
        key = file.read(_MOST_BYTES).decode("ascii").strip()
    if not key or not key.isprintable() or " " in key:  # it is going to be a part of a header
        raise ValueError("not a key")
    return key
