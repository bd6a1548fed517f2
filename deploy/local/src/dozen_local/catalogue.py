"""The model catalogue of a deployment: the one in `models.yaml`, with this deployment's ports and weights."""

from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

SOURCE = Path(__file__).parents[2] / "models.yaml"


def write_catalogue(
    path: Path, port_offset: int, source: Path = SOURCE, further: Iterable[Mapping[str, Any]] = ()
) -> None:
    """Write the catalogue for the models service: the source's models, and `further` ones as they are."""
    models = yaml.safe_load(source.read_text())["models"]
    installed = [model for model in models if find_spec(model.pop("weights"))]
    names = {model["id"] for model in installed}
    for model in installed:
        if "fallbacks" in model:
            model["fallbacks"] = [name for name in model["fallbacks"] if name in names]
        for deployment in model["deployments"]:
            _shift_ports(deployment, port_offset)
    path.write_text(yaml.safe_dump({"models": [*installed, *map(dict, further)]}, sort_keys=False))


def _shift_ports(deployment: dict[str, Any], port_offset: int) -> None:
    for name in {"address", "health_url"} & deployment.keys():
        url = urlsplit(deployment[name])
        deployment[name] = url._replace(netloc=f"{url.hostname}:{(url.port or 80) + port_offset}").geturl()


def read_capabilities(path: Path) -> dict[str, list[str]]:
    """Read what the models of a catalogue can do."""
    models = yaml.safe_load(path.read_text())["models"]
    return {model["id"]: model["capabilities"] for model in models}
