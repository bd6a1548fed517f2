"""The formats of a transcript."""

from dozen_audio.domain import AudioFormat, Segment, Transcript, to_srt, to_text, to_vtt

TRANSCRIPT = Transcript(4000_500, [Segment(" Hello there.", 0, 1.5), Segment(" Bye.", 3999.25, 4000.5)])


def test_plain_text_joins_the_segments() -> None:
    assert to_text(TRANSCRIPT) == "Hello there. Bye.\n"


def test_subrip_numbers_the_segments() -> None:
    assert to_srt(TRANSCRIPT) == (
        "1\n00:00:00,000 --> 00:00:01,500\nHello there.\n\n2\n01:06:39,250 --> 01:06:40,500\nBye.\n"
    )


def test_webvtt_begins_with_its_name() -> None:
    assert to_vtt(TRANSCRIPT) == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:01.500\nHello there.\n\n01:06:39.250 --> 01:06:40.500\nBye.\n"
    )


def test_each_format_has_a_content_type() -> None:
    assert [form.media_type for form in AudioFormat] == [
        "audio/mpeg", "audio/ogg", "audio/aac", "audio/flac", "audio/wav", "audio/pcm",
    ]  # fmt: skip
