"""Real encoders and decoders."""

from array import array
from pathlib import Path

import numpy as np
import pytest

from dozen_audio import codec
from dozen_audio.domain import AudioFormat
from dozen_audio.errors import AudioTooLong, UnreadableAudio

RATE = 24_000
TONE = (np.sin(np.arange(2 * RATE) * 2 * np.pi * 440 / RATE) / 2).astype(np.float32)


def encoded(audio_format: AudioFormat) -> bytes:
    encoder = codec.create_encoder(audio_format, RATE)
    return encoder.encode(TONE[:RATE]) + encoder.encode(TONE[RATE:]) + encoder.finish()


@pytest.mark.parametrize("audio_format", [form for form in AudioFormat if form is not AudioFormat.PCM])
def test_what_is_encoded_is_decoded_again(audio_format: AudioFormat) -> None:
    samples = codec.decode(encoded(audio_format), rate=16_000, max_seconds=10)
    assert len(samples) / 16_000 == pytest.approx(2, abs=0.12)
    spectrum = np.abs(np.fft.rfft(samples[8_000:24_000].astype(float)))
    assert spectrum.argmax() == pytest.approx(440, abs=2)


def test_pcm_is_bare_little_endian_samples() -> None:
    samples = array("h", encoded(AudioFormat.PCM))
    assert len(samples) == 2 * RATE
    assert max(samples) == pytest.approx(16_383, abs=10)


def test_mp3_is_sent_before_all_of_it_is_known() -> None:
    assert codec.create_encoder(AudioFormat.MP3, RATE).encode(TONE)


def test_a_recording_that_is_too_long_is_refused() -> None:
    with pytest.raises(AudioTooLong):
        codec.decode(encoded(AudioFormat.FLAC), rate=16_000, max_seconds=1)


@pytest.mark.parametrize("data", [b"", b"RIFF", b"not audio at all" * 100])
def test_what_is_no_recording_is_refused(data: bytes) -> None:
    with pytest.raises(UnreadableAudio):
        codec.decode(data, rate=16_000, max_seconds=10)


def test_a_playlist_cannot_open_files_of_the_server(tmp_path: Path) -> None:
    secret = tmp_path / "secret.wav"
    secret.write_bytes(encoded(AudioFormat.WAV))
    playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nfile://{secret}\n#EXT-X-ENDLIST\n"
    with pytest.raises(UnreadableAudio):
        codec.decode(playlist.encode(), rate=16_000, max_seconds=10)
    with pytest.raises(UnreadableAudio):
        codec.decode(f"ffconcat version 1.0\nfile '{secret}'\n".encode(), rate=16_000, max_seconds=10)
