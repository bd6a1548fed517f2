"""Rules for naming and cutting files."""

from datetime import UTC, datetime, timedelta

import pytest

from dozen_storage.domain import byte_range, is_account, new_file_id, plain_content_type, plain_filename


def test_ids_sort_by_time() -> None:
    start = datetime(2025, 1, 1, tzinfo=UTC)
    moments = [start + timedelta(milliseconds=ms) for ms in (0, 1, 1000, 10**9, 10**12)]
    ids = [new_file_id(moment, bytes([255 - index] * 10)) for index, moment in enumerate(moments)]
    assert ids == sorted(ids)
    assert {len(identifier) for identifier in ids} == {37}


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("cats.jsonl", "cats.jsonl"),
        ("../../etc/passwd", "passwd"),
        ("C:\\users\\me\\cats.txt", "cats.txt"),
        ("Katzen und Mäuse (2).txt", "Katzen und Mäuse (2).txt"),
        ("", None),
        ("..", None),
        ("a/", None),
        ("a\0b", None),
        ("a\r\nset-cookie: b", None),
        ("a" * 256, None),
    ],
)
def test_a_filename_has_no_directories_and_nothing_unprintable(name: str, plain: str | None) -> None:
    assert plain_filename(name) == plain


def test_a_content_type_that_is_not_valid_becomes_the_default() -> None:
    assert plain_content_type("Text/HTML; charset=utf-8") == "text/html"
    assert plain_content_type("text/html\r\nx: y") == "application/octet-stream"
    assert plain_content_type("") == "application/octet-stream"


@pytest.mark.parametrize(
    ("header", "span"),
    [
        (None, None),
        ("bytes=0-3", range(4)),
        ("bytes=4-", range(4, 10)),
        ("bytes=4-100", range(4, 10)),
        ("bytes=-3", range(7, 10)),
        ("bytes=-30", range(10)),
        ("bytes=-", None),
        ("bytes=3-2", None),
        ("bytes=0-1,4-5", None),
        ("lines=0-1", None),
        ("bytes=a-b", None),
    ],
)
def test_a_range_is_read_as_http_has_it(header: str | None, span: range | None) -> None:
    assert byte_range(header, 10) == span


@pytest.mark.parametrize(("header", "size"), [("bytes=10-", 10), ("bytes=-0", 10), ("bytes=0-", 0)])
def test_a_range_outside_of_the_file_is_empty(header: str, size: int) -> None:
    span = byte_range(header, size)
    assert span is not None
    assert not span


def test_an_account_has_no_slash() -> None:
    assert is_account("acme1")
    assert not any(map(is_account, ["", "../a", "a/b", "ACME", "a" * 33, "a\n"]))
