"""The data of server-sent events, in all the forms that they may have."""

import pytest

from dozen_inference.formats.events import EventData, event_data


@pytest.mark.parametrize(
    ("event", "data"),
    [
        (b"data: {}\n\n", b"{}"),
        (b"data:{}\n\n", b"{}"),
        (b"event: ping\ndata: {}\n\n", b"{}"),
        (b"event: ping\r\ndata: {}\r\nid: 7\r\n\r\n", b"{}"),
        (b"data: {}\r\r", b"{}"),
        (b"data: a\ndata: b\n\n", b"a\nb"),
        (b'data: {"text":"data: no"}\n\n', b'{"text":"data: no"}'),
        (b": data: comment\n\n", b""),
        (b"event: data:\n\n", b""),
    ],
)
def test_the_data_of_an_event(event: bytes, data: bytes) -> None:
    assert event_data(event) == data


def test_events_without_data_give_nothing() -> None:
    events = EventData()
    assert events.feed(b": keep-alive\n\nevent: ping\n\ndata: 1\n\ndata: ") == [b"1"]
    assert events.feed(b"2\r\n") == []
    assert events.feed(b"\r\n") == [b"2"]
