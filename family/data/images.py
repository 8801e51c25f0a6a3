"""The one decode-and-resize: encoded bytes in, uint8 RGB of the model's size out. No TensorFlow."""

import io
from collections.abc import Iterable
from dataclasses import asdict, dataclass

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from family.errors import unknown_name

MAX_PIXELS = 100_000_000  # a 100-megapixel photo; more is an attack or a mistake
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "MPO", "PNG", "TIFF", "WEBP")  # Pillow runs Ghostscript on others
ASPECTS = ("stretch", "crop", "pad")
FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}

ImageFile.LOAD_TRUNCATED_IMAGES = False
Image.MAX_IMAGE_PIXELS = None  # decode_rgb checks the size itself, before any pixel is decoded


class ImageError(ValueError):
    """These bytes are no image that can be used; the message says why."""


@dataclass(frozen=True)
class Preprocessing:
    """How bytes become pixels; stands in the card. EXIF rotation and antialiasing are always on."""

    resolution_px: int
    aspect: str = "stretch"  # stretch to the square, crop its middle, or pad with grey
    filter: str = "bilinear"

    def __post_init__(self):
        if self.aspect not in ASPECTS:
            raise unknown_name("aspect rule", self.aspect, ASPECTS)
        if self.filter not in FILTERS:
            raise unknown_name("resize filter", self.filter, FILTERS)

    def card(self) -> dict:
        return {**asdict(self), "exif": True, "antialias": True, "colour": "RGB, transparency over white"}

    @staticmethod
    def from_card(fields: dict) -> "Preprocessing":
        return Preprocessing(fields["resolution_px"], fields["aspect"], fields["filter"])


def decode_rgb(data: bytes) -> Image.Image:
    """Decode encoded bytes to an upright RGB image.

    Raises:
        ImageError: not an image of FORMATS, truncated, empty or larger than MAX_PIXELS.
    """
    try:
        image = Image.open(io.BytesIO(data))
        if image.format not in FORMATS:
            raise ImageError(f"{image.format} files are not read; allowed: {', '.join(FORMATS)}")
        if image.width * image.height > MAX_PIXELS:
            raise ImageError(f"{image.width} x {image.height} pixels; at most {MAX_PIXELS // 1_000_000} megapixels are decoded")
        image.load()
        ImageOps.exif_transpose(image, in_place=True)  # which copies nothing where there is nothing to turn
        if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
            rgba = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
        image = _eight_bits(image)
        return image if image.mode == "RGB" else image.convert("RGB")
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        raise ImageError("these bytes are no image") from error
    except Exception as error:  # Pillow's decoders raise nearly anything on hostile bytes
        raise ImageError(f"{type(error).__name__}: {error}") from error


def _eight_bits(image: Image.Image) -> Image.Image:
    # Pillow clips 16-bit grey to white when it converts; scale it instead.
    if image.mode.startswith("I;16") or image.mode == "I":
        pixels = np.asarray(image).astype(np.float32)
        return Image.fromarray((pixels / 257).clip(0, 255).astype(np.uint8))
    return image


def decode_image(data: bytes, how: Preprocessing, box: tuple[float, float, float, float] | None = None) -> np.ndarray:
    """Decode and resize to uint8 [resolution_px, resolution_px, 3] RGB.

    Args:
        box: (left, top, right, bottom) in 0..1 of the upright image, cut out before resizing (training crops).
    """
    return resize(decode_rgb(data), how, box)


def decode_sizes(data: bytes, hows: Iterable[Preprocessing]) -> dict[Preprocessing, np.ndarray]:
    """Decode once and resize for each of several models: uint8 [px, px, 3] RGB by how it was resized."""
    image = decode_rgb(data)
    return {how: resize(image, how) for how in dict.fromkeys(hows)}


def resize(image: Image.Image, how: Preprocessing, box: tuple[float, float, float, float] | None = None) -> np.ndarray:
    """Resize an RGB image to uint8 [resolution_px, resolution_px, 3] by the aspect rule."""
    size, method = (how.resolution_px, how.resolution_px), FILTERS[how.filter]
    if box is not None:
        left, top, right, bottom = box
        pixels = (left * image.width, top * image.height, right * image.width, bottom * image.height)
        image = image.resize(size, method, box=pixels)
    elif how.aspect == "stretch":
        image = image.resize(size, method)
    elif how.aspect == "crop":
        image = ImageOps.fit(image, size, method)
    else:
        image = ImageOps.pad(image, size, method, color=(128, 128, 128))
    return np.asarray(image, np.uint8)
