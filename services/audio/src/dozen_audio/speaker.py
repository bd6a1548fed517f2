"""The text-to-speech model: Hibari, one voice, on onnxruntime."""

from collections.abc import Iterator

from hibari import Hibari

from dozen_audio.codec import create_encoder
from dozen_audio.domain import AudioFormat, Spoken


class HibariSpeaker:
    """Speaks English; its methods block."""

    def __init__(self, threads: int) -> None:
        self._model = Hibari(threads=threads)
        self._model("Ready.")  # the first call loads the dictionaries, 100 MB of them

    def speak(self, text: str, audio_format: AudioFormat, speed: float) -> Iterator[Spoken]:
        """Give the audio of each sentence as soon as it is spoken, then what the format ends with.

        A sentence that the model cannot say, such as one in Chinese, is left out.
        """
        encoder, silent = create_encoder(audio_format, self._model.sample_rate), True
        for sentence in self._model.split_sentences(text):
            samples = self._model(sentence, speed=speed)
            if len(samples):
                silent = False
                yield Spoken(encoder.encode(samples), len(sentence))
        if not silent:
            yield Spoken(encoder.finish(), 0)
