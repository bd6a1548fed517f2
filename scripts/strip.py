"""Strip the debug symbols from the shared libraries below a directory, 190 MB of all models and servers.

A library keeps what the loader maps, its program segments; the table of sections, which only debuggers
read, goes with the symbols. What lay between segments becomes a hole in the file.
"""

import struct
import sys
from pathlib import Path

ELF64 = b"\x7fELF\x02\x01"
WORTH_BYTES = 1_000_000


def strip(path: Path) -> None:
    """Replace a library by its segments; the file itself may be linked to a cache and stays as it is."""
    data = bytearray(path.read_bytes())
    if not data.startswith(ELF64) or struct.unpack_from("<Q", data, 40) == (0,):
        return
    (headers_at,) = struct.unpack_from("<Q", data, 32)
    header_bytes, headers = struct.unpack_from("<HH", data, 54)
    segments = [struct.unpack_from("<8xQ16xQ", data, headers_at + header_bytes * n) for n in range(headers)]
    if len(data) - sum(size for _, size in segments) < WORTH_BYTES:
        return
    struct.pack_into("<Q", data, 40, 0)  # no table of sections: its place,
    struct.pack_into("<HH", data, 60, 0, 0)  # its length and the index of their names
    stripped = path.with_name(f"{path.name}.stripped")
    with stripped.open("wb") as file:
        for start, size in [(0, headers_at + header_bytes * headers), *segments]:
            file.seek(start)
            file.write(data[start : start + size])
    stripped.chmod(path.stat().st_mode)
    stripped.replace(path)


for library in Path(sys.argv[1]).rglob("*.so*"):
    if library.is_file() and not library.is_symlink() and library.stat().st_size > WORTH_BYTES:
        strip(library)
