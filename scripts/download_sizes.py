"""Print the download size of each package of a pylock.toml, for Python 3.11 on x86-64 Linux, as JSON."""

import json
import re
import sys
import tomllib
from pathlib import Path

FITS = re.compile(
    r"-(cp311-cp311|cp3\d+-abi3|(py2\.)?py3-none)-(any|.*linux_2.*x86_64|linux_x86_64|manylinux.*x86_64).*\.whl$"
)


def main() -> None:
    """Read the file named by the first argument."""
    lock = tomllib.loads(Path(sys.argv[1]).read_text())
    sizes: dict[str, int] = {}
    for package in lock["packages"]:
        wheels = [wheel for wheel in package.get("wheels", ()) if FITS.search(wheel["url"])]
        if wheels:
            sizes[package["name"]] = max(wheel["size"] for wheel in wheels)
    json.dump(dict(sorted(sizes.items())), sys.stdout, indent=1)
    print()


main()
