"""A row's training crop: a function of (seed, epoch, row) alone. No TensorFlow."""

import numpy as np

from family.data.dataset import Rows
from family.data.images import Preprocessing, decode_image
from family.recipe import Recipe


def read_cropped(rows: Rows, row: int, how: Preprocessing, recipe: Recipe, draw: np.random.Generator) -> np.ndarray:
    """Read a row's image, cropped and flipped as drawn: uint8 [px, px, 3]."""
    box, flip = draw_crop(recipe, draw)
    pixels = decode_image(rows.read(row), how, box)
    return pixels[:, ::-1] if flip else pixels


def row_draws(seed: int, epoch: int, row: int) -> np.random.Generator:
    """Return the generator of all that is drawn for a row, or for one of its pictures (see `epoch_order`), in an epoch."""
    return np.random.Generator(np.random.Philox(key=[seed, (epoch << 40) + row]))


def draw_crop(recipe: Recipe, draw: np.random.Generator) -> tuple[tuple[float, float, float, float] | None, bool]:
    """Draw a training crop (left, top, right, bottom in 0..1) and a flip: five numbers."""
    draw = draw.random(5)
    flip = bool(recipe.flip and draw[4] < 0.5)
    if recipe.crop_min_area >= 1:
        return None, flip
    area = recipe.crop_min_area + (1 - recipe.crop_min_area) * draw[0]
    stretch = (4 / 3) ** (2 * draw[1] - 1)  # aspect 3:4 to 4:3, as is usual since Szegedy et al. 2014
    width, height = min(1.0, (area * stretch) ** 0.5), min(1.0, (area / stretch) ** 0.5)
    left, top = (1 - width) * draw[2], (1 - height) * draw[3]
    return (left, top, left + width, top + height), flip
