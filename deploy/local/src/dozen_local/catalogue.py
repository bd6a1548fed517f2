"""The model catalogue of a deployment: the one in `models.yaml`, with this deployment's ports and weights."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

SOURCE = Path(__file__).parents[2] / "models.yaml"


def write_catalogue(path: Path, port_offset: int, source: Path = SOURCE) -> None:
    """Write the catalogue for the models service."""
    models = yaml.safe_load(source.read_text())["models"]
    installed = [model for model in models if find_spec(model.pop("weights"))]
    for model in installed:
        for deployment in model["deployments"]:
            _shift_ports(deployment, port_offset)
    path.write_text(yaml.safe_dump({"models": installed}, sort_keys=False))


def _shift_ports(deployment: dict[str, Any], port_offset: int) -> None:
    for name in ("address", "health_url"):
        url = urlsplit(deployment[name])
        deployment[name] = url._replace(netloc=f"{url.hostname}:{(url.port or 80) + port_offset}").geturl()
