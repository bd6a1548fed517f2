"""Audio containers and codecs: any common recording to samples, samples to any of OpenAI's formats."""

import io
import struct
from collections.abc import Iterator
from typing import Protocol, cast

import av
import av.error
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from numpy.typing import NDArray

from dozen_audio.domain import AudioFormat
from dozen_audio.errors import AudioTooLong, UnreadableAudio

Samples = NDArray[np.float32]
"""One channel, from -1 to 1."""
Pcm = NDArray[np.int16]
"""One channel of 16 bits, half as large."""

# Only formats that hold everything in themselves: a playlist would make FFmpeg open the files it names.
_READABLE = "wav,mp3,flac,ogg,matroska,webm,mov,mp4,m4a,aac,aiff"
_ENCODERS = {
    AudioFormat.MP3: ("mp3", "libmp3lame"),
    AudioFormat.OPUS: ("ogg", "libopus"),
    AudioFormat.AAC: ("adts", "aac"),
    AudioFormat.FLAC: ("flac", "flac"),
}


def decode(recording: bytes, *, rate: int, max_seconds: float) -> Pcm:
    """Give the samples of a recording as one channel; stop where it turns out longer than allowed."""
    resampler = AudioResampler(format="s16", layout="mono", rate=rate)
    parts: list[bytes] = []
    left = int(max_seconds * rate)
    try:
        with av.open(
            io.BytesIO(recording),
            "r",
            metadata_errors="ignore",
            container_options={"format_whitelist": _READABLE},
        ) as container:
            for frame in _resampled(container.decode(audio=0), resampler):
                left -= frame.samples
                if left < 0:
                    raise AudioTooLong(f"The recording is longer than {max_seconds:g} seconds.", param="file")
                parts.append(frame.to_ndarray().tobytes())
    except (av.error.FFmpegError, IndexError, ValueError) as error:
        raise UnreadableAudio(param="file") from error
    return np.frombuffer(b"".join(parts), np.int16)


def _resampled(frames: Iterator[AudioFrame], resampler: AudioResampler) -> Iterator[AudioFrame]:
    for frame in frames:
        frame.pts = None  # recordings with broken clocks are fine: only the samples count
        yield from resampler.resample(frame)
    yield from resampler.resample(None)


class AudioEncoder(Protocol):
    """Turns samples into the bytes of a file, piece by piece."""

    def encode(self, samples: Samples) -> bytes:
        """Take more samples; give the bytes that are ready."""
        ...

    def finish(self) -> bytes:
        """Give the rest of the file."""
        ...


def create_encoder(audio_format: AudioFormat, rate: int) -> AudioEncoder:
    """Create the encoder of a format."""
    if audio_format is AudioFormat.PCM:
        return _PcmEncoder()
    if audio_format is AudioFormat.WAV:
        return _WavEncoder(rate)
    return _FfmpegEncoder(*_ENCODERS[audio_format], rate)


def _pcm(samples: Samples) -> Pcm:
    return (np.clip(samples, -1, 1) * 32767).astype("<i2")


class _PcmEncoder:
    def encode(self, samples: Samples) -> bytes:
        return _pcm(samples).tobytes()

    def finish(self) -> bytes:
        return b""


class _WavEncoder:
    """Holds everything back, because the header at the start says how long the file is."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._parts: list[bytes] = []

    def encode(self, samples: Samples) -> bytes:
        self._parts.append(_pcm(samples).tobytes())
        return b""

    def finish(self) -> bytes:
        data = b"".join(self._parts)
        form = struct.pack("<IHHIIHH", 16, 1, 1, self._rate, self._rate * 2, 2, 16)
        return b"".join(
            (
                b"RIFF",
                struct.pack("<I", 36 + len(data)),
                b"WAVEfmt ",
                form,
                b"data",
                struct.pack("<I", len(data)),
                data,
            )
        )


class _Sink:
    """A file that can only be written to, so that FFmpeg never goes back to correct a header."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def write(self, part: bytes) -> int:
        self._parts.append(bytes(part))
        return len(part)

    def take(self) -> bytes:
        taken, self._parts = b"".join(self._parts), []
        return taken


class _FfmpegEncoder:
    def __init__(self, container: str, codec: str, rate: int) -> None:
        self._sink = _Sink()
        self._rate = rate
        self._container = av.open(self._sink, "w", format=container)
        self._stream = cast(AudioStream, self._container.add_stream(codec, rate=rate, layout="mono"))

    def encode(self, samples: Samples) -> bytes:
        frame = AudioFrame.from_ndarray(_pcm(samples)[None], format="s16", layout="mono")
        frame.sample_rate = self._rate
        self._container.mux(self._stream.encode(frame))
        return self._sink.take()

    def finish(self) -> bytes:
        self._container.mux(self._stream.encode(None))
        self._container.close()
        return self._sink.take()
