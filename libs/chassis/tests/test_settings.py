"""The settings of every service, and what the README says of them."""

import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from dozen_chassis.settings import AdmittedSettings

README = Path(__file__).parents[1] / "README.md"


def test_the_readme_lists_the_settings() -> None:
    rows = re.findall(r"^\| `(DOZEN_\w+)` \|[^|]*\| ([^|]+) \|$", README.read_text(), re.MULTILINE)
    fields = AdmittedSettings.model_fields
    assert dict(rows) == {f"DOZEN_{name.upper()}": field.description for name, field in fields.items()}


def test_secrets_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = dict.fromkeys(("grpc_key", "postgres_dsn", "nats_url", "admission_key"), "s3cret")
    for name, value in secrets.items():
        monkeypatch.setenv(f"DOZEN_{name.upper()}", value)
    settings = AdmittedSettings()
    assert settings.grpc_key.get_secret_value() == "s3cret"
    assert "s3cret" not in repr(settings)
    with pytest.raises(ValidationError, match="frozen"):
        settings.http_port = 1  # type: ignore[misc]
