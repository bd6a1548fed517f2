"""The real models: what one speaks, the other hears."""

import numpy as np
import pytest

from dozen_audio.domain import AudioFormat, Transcript
from dozen_audio.speaker import HibariSpeaker
from dozen_audio.transcriber import RATE, WhisperTranscriber, stretches

pytestmark = pytest.mark.integration

TEXT = "Hello, and welcome to the platform. Your report for the third quarter is ready."


@pytest.fixture(scope="module")
def transcriber() -> WhisperTranscriber:
    return WhisperTranscriber(threads=1)


@pytest.fixture(scope="module")
def recording() -> bytes:
    return b"".join(spoken.audio for spoken in HibariSpeaker(threads=1).speak(TEXT, AudioFormat.MP3, 1))


def test_what_is_spoken_is_heard(transcriber: WhisperTranscriber, recording: bytes) -> None:
    samples = transcriber.decode(recording, 60)
    segments = list(transcriber.transcribe(samples, None, 0, words=True))
    heard = Transcript(0, segments)
    assert heard.text == TEXT
    assert segments[-1].end <= transcriber.seconds(samples)
    assert [word.word for word in heard.words][:3] == ["Hello,", "and", "welcome"]
    assert all(word.start <= word.end for word in heard.words)


def test_silence_says_nothing(transcriber: WhisperTranscriber) -> None:
    silence = np.zeros(3 * RATE, np.int16)
    assert list(transcriber.transcribe(silence, None, 0, words=False)) == []


def test_a_long_recording_is_cut_in_its_pauses() -> None:
    samples = np.full(250 * RATE, 9000, np.int16)
    pauses = [(int(second * RATE), int((second + 0.4) * RATE)) for second in (115, 228)]
    for start, end in pauses:
        samples[start:end] = 0
    parts = list(stretches(samples))
    assert parts[0][0] == 0
    assert parts[-1][1] == len(samples)
    assert [end for _, end in parts[:-1]] == [start for start, _ in parts[1:]]
    for (_, cut), (start, end) in zip(parts[:-1], pauses, strict=True):
        assert start <= cut <= end
