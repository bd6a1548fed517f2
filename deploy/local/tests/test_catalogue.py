"""The catalogue fits the deployment."""

from pathlib import Path

import yaml

from dozen_local.catalogue import SOURCE, write_catalogue

EXAMPLE = """
models:
  - id: present
    weights: json
    fallbacks: [absent, other]
    deployments: [{id: one, address: "http://127.0.0.1:8110", health_url: "http://127.0.0.1:8210/health"}]
  - id: absent
    weights: no_such_package
    fallbacks: [present]
    deployments: []
  - id: other
    weights: json
    deployments: [{id: two, address: "http://127.0.0.1:8110", upstream: {url: "https://api.example.com"}}]
"""


def test_ports_are_shifted_and_models_without_weights_left_out(tmp_path: Path) -> None:
    (tmp_path / "source.yaml").write_text(EXAMPLE)
    write_catalogue(tmp_path / "models.yaml", 1000, tmp_path / "source.yaml")
    model, other = yaml.safe_load((tmp_path / "models.yaml").read_text())["models"]
    assert model == {
        "id": "present",
        "fallbacks": ["other"],
        "deployments": [
            {"id": "one", "address": "http://127.0.0.1:9110", "health_url": "http://127.0.0.1:9210/health"}
        ],
    }
    assert other["deployments"] == [
        {"id": "two", "address": "http://127.0.0.1:9110", "upstream": {"url": "https://api.example.com"}}
    ]


def test_further_models_are_written_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "source.yaml").write_text("models: []")
    model = {"id": "one/more", "deployments": [{"id": "one", "address": "http://127.0.0.1:8110"}]}
    write_catalogue(tmp_path / "models.yaml", 1000, tmp_path / "source.yaml", [model])
    assert yaml.safe_load((tmp_path / "models.yaml").read_text())["models"] == [model]


def test_prices_are_whole_nano_credits() -> None:
    for model in yaml.safe_load(SOURCE.read_text())["models"]:
        assert model["prices"]
        assert all(isinstance(price, int) and price > 0 for price in model["prices"].values())
