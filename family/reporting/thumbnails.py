"""Small photos of a dataset's images for a page: bounded in number and in bytes, without what cameras write beside the pixels."""

import io
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

from family.data.images import ImageError, decode_rgb
from family.data.reading import map_ahead

SIDE_PX = 128
MOST_BYTES = 8_000
MOST_PICTURES = 420
QUALITIES = (78, 65, 50, 35, 20, 8)  # the first whose file is small enough


def make_thumbnails(folder: Path, images: Iterable[str]) -> dict[str, bytes]:
    """Return a JPEG of at most MOST_BYTES of each image, its longer side SIDE_PX; of the first MOST_PICTURES images alone.

    Args:
        folder: the dataset's.
        images: paths inside it, the most important first.

    Raises:
        ImageError: an image cannot be decoded.
    """

    def make(image: str) -> bytes:
        try:
            return thumbnail((Path(folder) / image).read_bytes())
        except ImageError as error:
            raise ImageError(f"{image}: {error}") from error

    wanted = list(islice(dict.fromkeys(images), MOST_PICTURES))
    return dict(zip(wanted, map_ahead(make, wanted), strict=True))


def thumbnail(data: bytes) -> bytes:
    """Return an upright JPEG of encoded bytes, at most SIDE_PX wide and high and at most MOST_BYTES large."""
    image = decode_rgb(data)
    image.thumbnail((SIDE_PX, SIDE_PX), Image.Resampling.BICUBIC)
    bare = Image.fromarray(np.asarray(image))  # pixels alone: Pillow would write the original's comment again
    for quality in QUALITIES:
        buffer = io.BytesIO()
        bare.save(buffer, "JPEG", quality=quality, optimize=True)
        if buffer.tell() <= MOST_BYTES:
            break
    return buffer.getvalue()
