"""The errors of the images service."""

from dozen_chassis.errors import ServiceError, Status


class UnreadableImage(ServiceError):
    """The file is not an image that can be read; send PNG, JPEG, WebP, GIF, BMP or TIFF."""

    status = Status.INVALID_ARGUMENT
    code = "invalid_image"


class ImageTooLarge(ServiceError):
    """The image has too many pixels."""

    status = Status.INVALID_ARGUMENT
    code = "image_too_large"


class TooManyImages(ServiceError):
    """The request has more images than it was admitted for."""

    status = Status.INVALID_ARGUMENT
    code = "too_many_images"
