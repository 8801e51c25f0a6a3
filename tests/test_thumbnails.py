"""Small photos of a dataset: upright, bounded in pixels, bytes and number, and bare of what the camera wrote."""

import io

import numpy as np
import pytest
from PIL import Image

from family.data.images import ImageError
from family.reporting.thumbnails import MOST_BYTES, MOST_PICTURES, SIDE_PX, make_thumbnails, thumbnail


def encoded(image: Image.Image, file_format: str = "JPEG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def noise(width: int, height: int, mode: str = "RGB") -> Image.Image:
    channels = {"RGB": 3, "RGBA": 4, "L": 1}[mode]
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, channels), np.uint8)
    return Image.fromarray(pixels if channels > 1 else pixels[..., 0], mode)


@pytest.mark.parametrize(("width", "height", "mode"), [(900, 300, "RGB"), (300, 900, "RGBA"), (40, 30, "L"), (1, 1, "RGB"), (2000, 3, "RGB")])
def test_thumbnail_is_bounded_even_of_noise(width, height, mode):
    small = thumbnail(encoded(noise(width, height, mode), "PNG"))
    image = Image.open(io.BytesIO(small))
    assert image.format == "JPEG" and image.mode == "RGB" and len(small) <= MOST_BYTES
    assert max(image.size) == min(SIDE_PX, max(width, height))


def test_thumbnail_is_upright_and_bare(photo):
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "maker"  # turned by a quarter
    exif.get_ifd(0x8825)[2] = (52.0, 31.0, 12.0)  # a latitude
    original = encoded(noise(300, 200), exif=exif, comment=b"at home", icc_profile=b"profile")
    small = Image.open(io.BytesIO(thumbnail(original)))
    assert small.size == (round(SIDE_PX * 2 / 3), SIDE_PX)
    assert not small.getexif() and not {"comment", "icc_profile", "exif"} & set(small.info)


def test_images_are_made_once_in_order_and_no_more_than_the_bound(tmp_path, photo):
    names = [f"{k}.jpg" for k in range(MOST_PICTURES + 5)]
    for k, name in enumerate(names):
        (tmp_path / name).write_bytes(photo(k % 3, (8, 8)))
    found = make_thumbnails(tmp_path, [names[1], names[1], *names])
    assert list(found) == [names[1], names[0], *names[2:MOST_PICTURES]]


def test_an_image_that_cannot_be_decoded_is_named(tmp_path):
    (tmp_path / "bad.jpg").write_bytes(b"no image")
    with pytest.raises(ImageError, match="bad.jpg: these bytes are no image"):
        make_thumbnails(tmp_path, ["bad.jpg"])
