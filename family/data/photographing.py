"""Photograph a made-up item as an amateur would: a cluttered place, bad framing, bad light, a lossy file."""

import io
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from family.data.drawing import Item, render_item

SCENE_FACTOR = 1.5  # a scene's side over the longer side of a photo, so that there is room to move the camera
NOISE_TILE_PX = 512
# Width over height, and how often: landscape, portrait, square.
ASPECTS = ((4 / 3, 0.4), (3 / 4, 0.3), (1.0, 0.2), (3 / 2, 0.1))
# How far away: the item's side over the photo's shorter side, and how often.
DISTANCES = (((0.7, 0.95), 0.8), ((0.45, 0.62), 0.1), ((1.0, 1.25), 0.1))
WATERMARKS = ("FOR SALE", "my shop", "photo: owner", "SOLD?", "555-0142", "no swaps")
SHADOW = [round(0.45 * i) for i in range(256)]
P_USUAL_SURFACE = 0.4
P_VIGNETTE, P_BLUR, P_WATERMARK, P_FRAME, P_MIRROR = 0.4, 0.15, 0.08, 0.06, 0.3


@dataclass(frozen=True)
class Light:
    """The light of a place, shared by the photos of a listing."""

    gain: float
    cast: np.ndarray  # [3]


def draw_scene(department: str, rng: np.random.Generator, image_px: int) -> Image.Image:
    """Return a square place to photograph in: a wall, floor or cloth, with small things lying about."""
    side_px = round(image_px * SCENE_FACTOR)
    usual = USUAL_SURFACES.get(department, SURFACES)
    kinds = usual if rng.random() < P_USUAL_SURFACE else SURFACES
    kind = kinds[int(rng.integers(len(kinds)))]
    colour = rng.uniform(70, 215) + rng.normal(0, 18, 3)
    texture = Image.fromarray(np.clip(kind(rng, side_px) + 128, 0, 255).astype(np.uint8))
    levels = np.arange(256) - 128
    tables = np.clip(colour[:, None] + levels, 0, 255).astype(np.uint8).tolist()
    scene = Image.merge("RGB", [texture.point(table) for table in tables])
    _lay_clutter(scene, rng, side_px)
    return scene


def draw_light(rng: np.random.Generator) -> Light:
    """Draw how bright and how tinted a place is."""
    return Light(float(np.exp(rng.normal(-0.05, 0.22))), np.exp(rng.normal(0, 0.06, 3)))


def photograph(item: Item, scene: Image.Image, light: Light, rng: np.random.Generator, image_px: int) -> bytes:
    """Return one JPEG of the item in its scene; the longer side is `image_px`."""
    aspect = rng.choice([a for a, _ in ASPECTS], p=[p for _, p in ASPECTS])
    width_px = image_px if aspect >= 1 else round(image_px * aspect)
    height_px = image_px if aspect <= 1 else round(image_px / aspect)
    size_px = (width_px, height_px)
    photo = _frame_scene(scene, rng, size_px)
    colours, coverage = render_item(item, size_px, _place(rng, size_px))
    shift_px = round(0.03 * image_px)
    photo.paste((0, 0, 0), (shift_px, shift_px), mask=coverage.point(SHADOW))
    photo.paste(colours, mask=coverage)
    photo = _expose(photo, light, rng)
    if rng.random() < P_BLUR:
        photo = photo.filter(ImageFilter.GaussianBlur(rng.uniform(0.004, 0.011) * image_px))
    _deface(photo, rng)
    file = io.BytesIO()
    photo.save(file, "JPEG", quality=int(rng.integers(70, 91)))
    return file.getvalue()


def _place(rng: np.random.Generator, size_px: tuple[int, int]) -> np.ndarray:
    """Draw the affine map [2, 3] from the item's square to pixels: distance, turn, skew, offset, mirror."""
    short_px = min(size_px)
    (low, high) = DISTANCES[rng.choice(len(DISTANCES), p=[p for _, p in DISTANCES])][0]
    half_px = rng.uniform(low, high) * short_px / 2
    angle = rng.normal(0, np.radians(7))
    mirror = -1.0 if rng.random() < P_MIRROR else 1.0
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    skew = np.array([[mirror, rng.normal(0, 0.05)], [rng.normal(0, 0.04), 1.0]])
    centre = np.array(size_px) / 2 + np.clip(rng.normal(0, 0.075, 2), -0.2, 0.2) * np.array(size_px)
    return np.column_stack([half_px * turn @ skew, centre])


def _frame_scene(scene: Image.Image, rng: np.random.Generator, size_px: tuple[int, int]) -> Image.Image:
    """Cut a window of the scene, at some zoom, and resize it to the photo."""
    zoom = rng.uniform(0.8, 1.25)
    window = np.minimum(np.array(size_px) * zoom, scene.width)
    left, top = rng.random(2) * (scene.width - window)
    box = (left, top, left + window[0], top + window[1])
    return scene.resize(size_px, Image.Resampling.BILINEAR, box=box)


def _expose(photo: Image.Image, light: Light, rng: np.random.Generator) -> Image.Image:
    """Apply the place's light, a camera's own exposure, a light falling off to one side, and sensor noise."""
    gain = light.gain * np.exp(rng.normal(0, 0.08)) * light.cast
    across = np.linspace(-1, 1, photo.width, dtype=np.float32)
    down = np.linspace(-1, 1, photo.height, dtype=np.float32)
    slope = rng.normal(0, 0.12, 2)
    corner = rng.uniform(0.1, 0.3) if rng.random() < P_VIGNETTE else 0.0
    shade_x = (1 + slope[0] * across - corner * across**2)[:, None] * gain
    shade_y = 1 + slope[1] * down - corner * down**2
    pixels = shade_y[:, None, None].astype(np.float32) * shade_x.astype(np.float32)
    pixels *= np.asarray(photo)
    top, left = rng.integers(0, NOISE_TILE_PX, 2)
    noise = _noise_tile(photo.width, photo.height)[top : top + photo.height, left : left + photo.width]
    pixels += noise * np.float32(rng.uniform(1.5, 9))
    return Image.fromarray(np.clip(pixels, 0, 255, out=pixels).astype(np.uint8))


@lru_cache(maxsize=8)
def _noise_tile(width_px: int, height_px: int) -> np.ndarray:
    # Fresh noise for each photo would cost a third of the time; a random cut from one tile looks the same.
    rng = np.random.default_rng(0)
    return rng.standard_normal((NOISE_TILE_PX + height_px, NOISE_TILE_PX + width_px, 3), dtype=np.float32)


def _deface(photo: Image.Image, rng: np.random.Generator) -> None:
    """Sometimes write a text over the photo, or put a frame around it."""
    pen = ImageDraw.Draw(photo)
    if rng.random() < P_WATERMARK:
        text = WATERMARKS[int(rng.integers(len(WATERMARKS)))]
        at = (rng.uniform(0, 0.5) * photo.width, rng.uniform(0.05, 0.85) * photo.height)
        fill = (255, 255, 255) if rng.random() < 0.7 else (20, 20, 20)
        pen.text(at, text, fill=fill, font=_font(photo.width // 10))
    if rng.random() < P_FRAME:
        colour = tuple(int(c) for c in rng.integers(0, 256, 3))
        pen.rectangle((0, 0, photo.width - 1, photo.height - 1), outline=colour, width=photo.width // 30 + 1)


@lru_cache(maxsize=8)
def _font(size_px: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(max(8, size_px))


def _lay_clutter(scene: Image.Image, rng: np.random.Generator, side_px: int) -> None:
    """Scatter a few discs, boxes, sticks and scraps over the scene."""
    pen = ImageDraw.Draw(scene)
    for _ in range(int(rng.integers(0, 9))):
        x, y = rng.random(2) * side_px
        half_w, half_h = rng.uniform(0.02, 0.09, 2) * side_px
        fill = tuple(int(c) for c in rng.integers(20, 236, 3))
        kind = int(rng.integers(4))
        if kind == 0:
            pen.ellipse((x - half_w, y - half_w, x + half_w, y + half_w), fill=fill, outline=(30, 30, 30))
        elif kind == 1:
            pen.rectangle((x - half_w, y - half_h, x + half_w, y + half_h), fill=fill, outline=(30, 30, 30))
        elif kind == 2:
            pen.line((x, y, *(rng.random(2) * side_px)), fill=fill, width=max(1, side_px // 80))
        else:
            corners = rng.uniform(-1, 1, (3, 2)) * (1.5 * half_w, 1.5 * half_h) + (x, y)
            pen.polygon(corners.ravel().tolist(), fill=fill)


def _enlarge(coarse: np.ndarray, side_px: int) -> np.ndarray:
    image = Image.fromarray(np.asarray(coarse, dtype=np.float32))
    return np.asarray(image.resize((side_px, side_px), Image.Resampling.BICUBIC))


def _wall(rng: np.random.Generator, side_px: int) -> np.ndarray:
    """Uneven plaster, with a skirting board or a table's edge in half of the cases."""
    texture = _enlarge(rng.normal(0, 12, (5, 5)), side_px).copy()
    if rng.random() < 0.5:
        texture[int(rng.uniform(0.5, 0.85) * side_px) :] -= rng.uniform(25, 60)
    return texture


def _carpet(rng: np.random.Generator, side_px: int) -> np.ndarray:
    """Coarse pile with lighter patches."""
    pile = rng.standard_normal((side_px // 2, side_px // 2), dtype=np.float32) * rng.uniform(8, 20)
    return _enlarge(pile, side_px) + _enlarge(rng.normal(0, 10, (6, 6)), side_px)


def _planks(rng: np.random.Generator, side_px: int) -> np.ndarray:
    """Boards with grain along them and dark joints between them."""
    n_boards = int(rng.integers(4, 9))
    board = np.arange(side_px) * n_boards // side_px
    grain = _enlarge(rng.normal(0, 9, (side_px // 4, 6)), side_px)
    texture = grain + rng.normal(0, 10, n_boards).astype(np.float32)[board][:, None]
    texture[np.flatnonzero(np.diff(board))] -= 45
    return texture if rng.random() < 0.5 else texture.T


def _tiles(rng: np.random.Generator, side_px: int) -> np.ndarray:
    """Square tiles with joints."""
    n_tiles = int(rng.integers(4, 8))
    tile = np.arange(side_px) * n_tiles // side_px
    texture = rng.normal(0, 6, (n_tiles, n_tiles))[tile][:, tile]
    joints = np.flatnonzero(np.diff(tile))
    texture[joints] += 30
    texture[:, joints] += 30
    return texture


def _lawn(rng: np.random.Generator, side_px: int) -> np.ndarray:
    """Short vertical blades."""
    blades = rng.normal(0, rng.uniform(12, 24), (side_px // 8, side_px // 2))
    return _enlarge(blades, side_px)


def _cloth(rng: np.random.Generator, side_px: int) -> np.ndarray:
    """A sheet with soft folds."""
    at = np.arange(side_px, dtype=np.float32) / side_px
    waves = rng.uniform(1, 4) * at[:, None] + rng.uniform(1, 4) * at[None] + rng.random()
    fold = np.sin(2 * np.pi * waves)
    return rng.uniform(6, 16) * fold + _enlarge(rng.normal(0, 8, (4, 4)), side_px)


SURFACES = (_wall, _wall, _carpet, _planks, _tiles, _lawn, _cloth)
# A cat lies on the carpet, a car does not; places tell the departments apart a little, never the categories.
USUAL_SURFACES = {
    "Electronics": (_planks,),
    "Animals": (_lawn, _carpet),
    "Transport": (_wall, _lawn),
    "Home and garden": (_wall, _planks, _tiles),
    "Fashion": (_cloth,),
    "Hobby": (_carpet, _planks),
    "Property": (_wall, _lawn),
}
