"""The errors of the audio service."""

from dozen_chassis.errors import ServiceError, Status


class UnreadableAudio(ServiceError):
    """The file is not a recording that can be read; send WAV, MP3, FLAC, Ogg, WebM or M4A."""

    status = Status.INVALID_ARGUMENT
    code = "invalid_audio"


class AudioTooLong(ServiceError):
    """The recording is too long."""

    status = Status.INVALID_ARGUMENT
    code = "audio_too_long"


class AudioTooLongForItsSize(ServiceError):
    """The recording is longer than a file of its size may be; send it with a higher bit rate."""

    status = Status.INVALID_ARGUMENT
    code = "audio_too_long_for_its_size"


class LanguageNotSupported(ServiceError):
    """This model only understands English; leave `language` out or send `en`."""

    status = Status.INVALID_ARGUMENT
    code = "unsupported_language"


class VoiceNotFound(ServiceError):
    """There is no such voice."""

    status = Status.INVALID_ARGUMENT
    code = "voice_not_found"


class InvalidInput(ServiceError):
    """The input must have 1 to 4096 characters, and something to speak."""

    status = Status.INVALID_ARGUMENT
    code = "invalid_input"


class InvalidSpeed(ServiceError):
    """The speed must be from 0.25 to 4."""

    status = Status.INVALID_ARGUMENT
    code = "invalid_speed"


class FormatNotSupported(ServiceError):
    """The audio format must be one of mp3, opus, aac, flac, wav and pcm."""

    status = Status.INVALID_ARGUMENT
    code = "unsupported_format"
