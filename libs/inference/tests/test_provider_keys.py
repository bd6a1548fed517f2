"""Keys of providers: read anew when they have changed, and told to nobody."""

import logging
from pathlib import Path

import pytest

from dozen_inference.provider_keys import ProviderKeyMissing, ProviderKeys


def test_no_name_needs_no_key(tmp_path: Path) -> None:
    assert ProviderKeys(None).read("") == ""
    assert ProviderKeys(tmp_path).read("") == ""


def test_a_key_is_read_again_once_it_has_changed(tmp_path: Path) -> None:
    """Kubernetes changes a mounted secret by turning a link to another directory."""
    for version, key in (("v1", "sk-old\n"), ("v2", "sk-newer\n")):
        (tmp_path / version).mkdir()
        (tmp_path / version / "openai").write_text(key)
    (tmp_path / "data").symlink_to("v1")
    (tmp_path / "openai").symlink_to("data/openai")
    keys = ProviderKeys(tmp_path)
    assert [keys.read("openai"), keys.read("openai")] == ["sk-old", "sk-old"]
    (tmp_path / "next").symlink_to("v2")
    (tmp_path / "next").rename(tmp_path / "data")
    assert keys.read("openai") == "sk-newer"
    (tmp_path / "openai").unlink()
    with pytest.raises(ProviderKeyMissing):
        keys.read("openai")


@pytest.mark.parametrize("name", ["missing", "../outside", "/etc/passwd", "..", ".", "directory", "a/b"])
def test_only_a_file_in_the_directory_is_a_key(tmp_path: Path, name: str) -> None:
    (tmp_path / "outside").write_text("sk-outside")
    (tmp_path / "keys" / "directory").mkdir(parents=True)
    with pytest.raises(ProviderKeyMissing):
        ProviderKeys(tmp_path / "keys").read(name)


@pytest.mark.parametrize("content", [b"", b" \n", b"sk-\xff", b"sk-1\r\nx-evil: 1", b"two keys", b"sk\x00"])
def test_what_cannot_be_in_a_header_is_no_key_and_is_not_told(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "openai").write_bytes(content)
    with caplog.at_level(logging.DEBUG), pytest.raises(ProviderKeyMissing) as raised:
        ProviderKeys(tmp_path).read("openai")
    assert "openai" in caplog.text
    assert "sk" not in caplog.text + repr(raised.value)
    assert raised.value.__suppress_context__


def test_without_a_directory_there_is_no_key() -> None:
    with pytest.raises(ProviderKeyMissing):
        ProviderKeys(None).read("openai")
