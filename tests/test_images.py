"""The one decode-and-resize: any bytes become upright RGB of the model's size, or an ImageError."""

import io
import struct
import zlib
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from family.data import images
from family.data.images import ASPECTS, ImageError, Preprocessing, decode_image, decode_rgb
from family.errors import UserError


def encode(image: Image.Image, file_format: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def corners() -> Image.Image:
    """Return an image whose four quarters are red, green, blue and white, clockwise from the top left, and not square."""
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[:20, :30], pixels[:20, 30:], pixels[20:, 30:], pixels[20:, :30] = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
    return Image.fromarray(pixels)


def png_header(width: int, height: int) -> bytes:
    """Return a PNG that claims a size and holds next to nothing."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 100)), (b"IEND", b"")]
    packed = [struct.pack(">I", len(d)) + name + d + struct.pack(">I", zlib.crc32(name + d)) for name, d in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_rotation_is_undone(orientation):
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_270,
    }  # fmt: skip
    stored = corners().transpose(undo[orientation]) if orientation > 1 else corners()
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = np.asarray(decode_rgb(encode(stored, "JPEG", quality=95, subsampling=0, exif=exif)), int)
    assert found.shape == (40, 60, 3)
    assert np.abs(found - np.asarray(corners(), int)).mean() < 6


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_broken_exif_block_does_not_cost_the_photo():
    for block in (b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x63\0\0"):
        assert decode_rgb(encode(corners(), "JPEG", exif=block)).size == (60, 40)


def test_transparency_is_over_white():
    rgba = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    rgba.putpixel((0, 0), (255, 0, 0, 255))
    rgba.putpixel((1, 0), (0, 0, 0, 127))
    found = decode_rgb(encode(rgba))
    assert [found.getpixel(at) for at in ((0, 0), (3, 3))] == [(255, 0, 0), (255, 255, 255)]
    assert found.getpixel((1, 0)) == pytest.approx((128, 128, 128), abs=1)
    grey = Image.new("LA", (2, 2), (0, 0))
    assert decode_rgb(encode(grey)).getpixel((0, 0)) == (255, 255, 255)


def test_a_palette_with_a_transparent_colour_is_over_white():
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([255, 0, 0, 0, 0, 255])
    palette.putpixel((0, 0), 0)
    for file_format in ("PNG", "GIF"):
        found = decode_rgb(encode(palette, file_format, transparency=0))
        assert (found.getpixel((0, 0)), found.getpixel((3, 3))) == ((255, 255, 255), (0, 0, 255))


def test_sixteen_bit_grey_is_scaled_and_not_clipped():
    ramp = np.array([[0, 257 * 64, 257 * 128, 65535]], np.uint16)
    for file_format in ("PNG", "TIFF"):
        assert np.asarray(decode_rgb(encode(Image.fromarray(ramp), file_format)))[0].tolist() == [[v] * 3 for v in (0, 64, 128, 255)]


def test_other_colours_become_rgb():
    assert decode_rgb(encode(Image.new("L", (3, 3), 77))).getpixel((1, 1)) == (77, 77, 77)
    assert decode_rgb(encode(Image.new("1", (3, 3), 1))).getpixel((1, 1)) == (255, 255, 255)
    cmyk = decode_rgb(encode(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=95))
    assert cmyk.mode == "RGB" and np.abs(np.subtract(cmyk.getpixel((8, 8)), (255, 0, 0))).max() < 12


def test_of_an_animation_the_first_frame_counts():
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    for file_format in ("GIF", "WEBP", "PNG"):
        options = {"lossless": True} if file_format == "WEBP" else {}
        data = encode(frames[0], file_format, save_all=True, append_images=frames[1:], **options)
        assert decode_rgb(data).getpixel((4, 4)) == (255, 0, 0)


@pytest.mark.parametrize("size", [(60, 40), (1, 1), (1000, 1), (1, 1000), (7, 300)])
@pytest.mark.parametrize("aspect", ASPECTS)
def test_every_aspect_rule_takes_every_shape(aspect, size):
    found = decode_image(encode(Image.new("RGB", size, "red")), Preprocessing(32, aspect))
    assert found.shape == (32, 32, 3) and found.dtype == np.uint8


def test_what_the_aspect_rules_keep():
    left_third = np.zeros((32, 96, 3), np.uint8)
    left_third[:, :32] = 255
    data = encode(Image.fromarray(left_third))
    assert decode_image(data, Preprocessing(32, "stretch"))[16, :8].min() == 255
    assert decode_image(data, Preprocessing(32, "crop")).max() < 255 / 2
    padded = decode_image(data, Preprocessing(32, "pad"))
    assert (padded[0] == 128).all() and (padded[-1] == 128).all() and padded[16, 4].min() == 255


def test_shrinking_averages_and_does_not_alias():
    fine = (np.indices((512, 512)).sum(0) % 2 * 255).astype(np.uint8)
    for how in (Preprocessing(32, filter="bilinear"), Preprocessing(32, filter="bicubic")):
        assert np.abs(decode_image(encode(Image.fromarray(fine)), how).astype(int) - 127).max() <= 2


def test_a_box_is_cut_before_resizing():
    found = decode_image(encode(corners()), Preprocessing(32), box=(0.5, 0.5, 1, 1))
    assert (found[2:-2, 2:-2] == (0, 0, 255)).all()


def test_the_card_brings_the_same_preprocessing():
    how = Preprocessing(300, "pad", "bicubic")
    assert Preprocessing.from_card(how.card()) == how
    with pytest.raises(UserError, match="Did you mean 'crop'"):
        Preprocessing(32, "crops")
    with pytest.raises(UserError, match="bicubic, bilinear"):
        Preprocessing(32, filter="nearest")


def test_too_many_pixels_are_refused_before_they_are_decoded():
    with pytest.raises(ImageError, match="megapixels"):
        decode_rgb(png_header(50_000, 50_000))


def test_the_limit_of_pixels_is_inclusive(monkeypatch):
    monkeypatch.setattr(images, "MAX_PIXELS", 2400)
    assert decode_rgb(encode(corners())).size == (60, 40)
    monkeypatch.setattr(images, "MAX_PIXELS", 2399)
    with pytest.raises(ImageError):
        decode_rgb(encode(corners()))


@pytest.mark.parametrize("data", [b"", b"\0" * 1000, b"<html>", b"\xff\xd8\xff", png_header(9, 9)])
def test_what_is_no_image_is_an_image_error(data):
    with pytest.raises(ImageError):
        decode_rgb(data)


def test_a_truncated_image_is_refused():
    for file_format in ("JPEG", "PNG", "WEBP"):
        data = encode(corners().resize((200, 200)), file_format)
        with pytest.raises(ImageError):
            decode_rgb(data[: len(data) // 2])


def test_formats_that_run_programs_are_refused():
    with pytest.raises(ImageError, match="EPS"):
        decode_rgb(encode(corners(), "EPS"))


CHANGES = st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 255)), max_size=8)  # (place, byte)
SEEDS = [encode(corners(), f, **o) for f, o in (("JPEG", {}), ("PNG", {}), ("GIF", {}), ("WEBP", {}), ("TIFF", {}), ("BMP", {}))]


@pytest.mark.filterwarnings("ignore::UserWarning")
@mock.patch.object(images, "MAX_PIXELS", 1_000_000)  # a changed size must not cost seconds
@settings(max_examples=300)
@given(st.sampled_from(SEEDS), CHANGES, st.integers(0, 2**16), st.sampled_from(ASPECTS))
def test_mutated_images_decode_or_are_an_image_error(data, changes, cut, aspect):
    mutated = bytearray(data)
    for at, value in changes:
        mutated[at % len(mutated)] = value
    mutated = bytes(mutated[: max(cut % (2 * len(mutated)), 1)])
    try:
        found = decode_image(mutated, Preprocessing(32, aspect))
    except ImageError as error:
        assert str(error) and "0x" not in str(error)
    else:
        assert found.shape == (32, 32, 3)
