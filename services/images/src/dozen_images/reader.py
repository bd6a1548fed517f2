"""The text recognition model: PP-OCRv6 (small) on onnxruntime, and the decoding of images for it."""

import io
import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np
import rapidocr
from PIL import Image, ImageDraw, ImageFont, ImageOps
from rapidocr.utils.output import RapidOCROutput

from dozen_images.domain import Point, Reading, TextLine
from dozen_images.errors import ImageTooLarge, UnreadableImage

_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
# Longest side the model sees. 2000 costs 250 MB more memory and 1.3 s more time on a large photo.
_LONGEST_SIDE = 1600
_ORIENTATION = 0x112  # the EXIF tag; from 5 on, the camera was held upright
_FIRST_LYING = 5


class Picture(NamedTuple):
    """A decoded image, made smaller where it was large, and its size before that."""

    image: Image.Image
    width: int
    height: int


class PaddleReader:
    """Reads text in images; its methods block."""

    def __init__(self, threads: int, max_pixels: int) -> None:
        self._max_pixels = max_pixels
        models = Path(rapidocr.__file__).parent / "models"
        self._model = rapidocr.RapidOCR(
            params={
                # With their paths given, a missing file is an error and not a download.
                "Det.model_path": str(models / "PP-OCRv6_det_small.onnx"),
                "Cls.model_path": str(models / "ch_ppocr_mobile_v2.0_cls_mobile.onnx"),
                "Rec.model_path": str(models / "PP-OCRv6_rec_small.onnx"),
                # By default narrow images are enlarged, without limit: 300 x 4000 took 10 s and 1.4 GB.
                "Det.limit_type": "max",
                "Det.limit_side_len": _LONGEST_SIDE,
                "Global.max_side_len": _LONGEST_SIDE,
                "Rec.rec_batch_num": 1,
                "Cls.cls_batch_num": 1,
                "EngineConfig.onnxruntime.intra_op_num_threads": threads,
                "EngineConfig.onnxruntime.inter_op_num_threads": 1,
                "Global.log_level": "error",
            }
        )
        self._warm_up()

    def decode(self, data: bytes) -> Picture:
        """Decode an image, upright and on white; refuse one with too many pixels before it is unpacked."""
        try:
            image: Image.Image = Image.open(io.BytesIO(data), formats=_FORMATS)
            width, height = image.size
            if width * height > self._max_pixels:
                raise ImageTooLarge(
                    f"The image has {width} x {height} pixels; at most {self._max_pixels} are accepted.",
                    param="image",
                )
            if image.getexif().get(_ORIENTATION, 1) >= _FIRST_LYING:
                width, height = height, width
            transparent = image.has_transparency_data
            if image.mode == "P":  # colour numbers cannot be averaged
                image = image.convert("RGBA" if transparent else "RGB")
            image.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE))  # a large JPEG is never unpacked in full
            image = ImageOps.exif_transpose(image).convert("RGBA" if transparent else "RGB")
        except Image.DecompressionBombError as error:
            raise ImageTooLarge(param="image") from error
        except (OSError, SyntaxError, ValueError, IndexError, TypeError, struct.error) as error:
            raise UnreadableImage(param="image") from error
        if transparent:
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
        return Picture(image, width, height)

    def read(self, picture: Picture) -> Reading:
        """Find the lines of text."""
        found = self._model(np.asarray(picture.image)[:, :, ::-1])
        assert isinstance(found, RapidOCROutput)
        across, down = picture.width / picture.image.width, picture.height / picture.image.height
        lines = [
            TextLine(text, float(score), [Point(float(x) * across, float(y) * down) for x, y in box])
            for text, score, box in zip(
                found.txts or (), found.scores or (), () if found.boxes is None else found.boxes, strict=True
            )
        ]
        return Reading(picture.width, picture.height, lines)

    def _warm_up(self) -> None:
        """Load the three parts of the model, which happens when each is first used."""
        image = Image.new("RGB", (200, 60), "white")
        ImageDraw.Draw(image).text((10, 10), "Ready", "black", ImageFont.load_default(30))
        self.read(Picture(image, *image.size))
