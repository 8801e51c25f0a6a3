"""Augmentation of training photos on Pillow and NumPy, as pure functions of pixels and one generator. No TensorFlow.

Every random number comes from the generator that the caller gives, keyed by (seed, epoch, row), so a row's picture does not depend
on other rows, on ranks or on timing. The order of the draws is part of the contract: what the caller draws for crop and flip, then

1. `augment`: three numbers for each operation (which, magnitude, sign); none with the policy "none";
2. `augment`: five numbers for the erased box (whether, area, aspect, top, left), then its bytes; none with `erase` 0;
3. `draw_partner`: four numbers (whether, which kind, centre down, centre across), the partner's row, then the share; none without mixing.

A row that is mixed into another one brings the picture that it has itself in that epoch (1 and 2 with its own generator), unmixed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from family.errors import UserError, unknown_name

POLICIES = ("none", "trivial", "rand")
FILL = (124, 116, 104)  # the mean colour of ImageNet
LEVELS = 31  # of TrivialAugment's magnitude: 0, 1/30 .. 1
ERASED_AREA = (0.02, 0.33)
ERASED_ASPECT = (0.3, 3.3)  # height over width
RANGES = {"rand_n": (1, 20), "magnitude": (0, 1), "erase": (0, 1), "mix_share": (0, 1)}
ALPHAS = (0.01, 100)  # below, Beta draws little but 0 and 1; above, little but 1/2


@dataclass(frozen=True)
class Augment:
    """How training photos are changed; by default not at all. A field out of its range is a UserError."""

    policy: str = "none"  # trivial: one operation of random magnitude; rand: rand_n operations of one magnitude
    rand_n: int = 2
    magnitude: float = 0.3  # of "rand", in 0..1 of each operation's range
    erase: float = 0.0  # probability of random erasing
    mixup: float = 0.0  # alpha of Beta(alpha, alpha); 0: none
    cutmix: float = 0.0  # alpha of Beta(alpha, alpha); 0: none
    mix_share: float = 1.0  # probability that a row is mixed when mixup or cutmix is on; with both on, each gets half

    def __post_init__(self):
        if self.policy not in POLICIES:
            raise unknown_name("augmentation policy", self.policy, POLICIES)
        for key, (low, high) in RANGES.items():
            if not low <= getattr(self, key) <= high:
                raise UserError(f"augmentation: {key} = {getattr(self, key)!r} is out of range; allowed: {low} to {high}")
        for key in ("mixup", "cutmix"):
            alpha = getattr(self, key)
            if alpha != 0 and not ALPHAS[0] <= alpha <= ALPHAS[1]:
                raise UserError(f"augmentation: {key} = {alpha!r} is out of range; allowed: {ALPHAS[0]} to {ALPHAS[1]}, or 0 for none")


class Operation(NamedTuple):
    """A change of an image by an amount, and the amounts at magnitude 1."""

    apply: Callable[[Image.Image, float], Image.Image]
    rand: float  # RandAugment, with AutoAugment's table: Cubuk et al. 2019 and 2020
    wide: float  # TrivialAugment's wide ranges: Müller and Hutter 2021
    signed: bool  # the amount is as often negative


def _enhance(kind: type) -> Callable[[Image.Image, float], Image.Image]:
    # The factor runs both ways from 1, as in TrivialAugment. RandAugment's first code ran from 0.1 to 1.9, so that magnitude 0 was darkest.
    return lambda image, amount: kind(image).enhance(1 + amount)


def _shear(image: Image.Image, across: float, down: float) -> Image.Image:
    """Return the image whose pixel (x, y) is what stands at (x + across y, y + down x), or FILL outside."""
    matrix = (1, across, 0, down, 1, 0)
    return image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR, fillcolor=FILL)


def _translate(image: Image.Image, across: float, down: float) -> Image.Image:
    # Whole pixels need no interpolation, which takes thirty times as long (0.9 ms at 224 px).
    matrix = (1, 0, round(across * image.width), 0, 1, round(down * image.height))
    return image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.NEAREST, fillcolor=FILL)


def _rotate(image: Image.Image, degrees: float) -> Image.Image:
    return image.rotate(degrees, Image.Resampling.BILINEAR, fillcolor=FILL)


# The place of an operation in this table is part of the contract: draws choose by it. Shears keep the top or left edge in place, as
# in both papers' code. Translations are shares of the side: 150 of AutoAugment's 331 px, and 32 of 224 px.
OPERATIONS = {
    "identity": Operation(lambda image, _: image, 0, 0, False),
    "autocontrast": Operation(lambda image, _: ImageOps.autocontrast(image), 0, 0, False),
    "equalize": Operation(lambda image, _: ImageOps.equalize(image), 0, 0, False),
    "rotate": Operation(_rotate, 30, 135, True),
    "solarize": Operation(lambda image, amount: ImageOps.solarize(image, 256 - round(amount)), 256, 256, False),
    "posterize": Operation(lambda image, amount: ImageOps.posterize(image, 8 - round(amount)), 4, 6, False),
    "color": Operation(_enhance(ImageEnhance.Color), 0.9, 0.99, True),
    "contrast": Operation(_enhance(ImageEnhance.Contrast), 0.9, 0.99, True),
    "brightness": Operation(_enhance(ImageEnhance.Brightness), 0.9, 0.99, True),
    "sharpness": Operation(_enhance(ImageEnhance.Sharpness), 0.9, 0.99, True),
    "shear-x": Operation(lambda image, amount: _shear(image, amount, 0), 0.3, 0.99, True),
    "shear-y": Operation(lambda image, amount: _shear(image, 0, amount), 0.3, 0.99, True),
    "translate-x": Operation(lambda image, amount: _translate(image, amount, 0), 150 / 331, 32 / 224, True),
    "translate-y": Operation(lambda image, amount: _translate(image, 0, amount), 150 / 331, 32 / 224, True),
}


def draw_operations(how: Augment, draw: np.random.Generator) -> list[tuple[str, float]]:
    """Draw (name of an operation, its signed amount), in the order of their use; with replacement, as both papers do."""
    if how.policy == "none":
        return []
    names, chosen = list(OPERATIONS), []
    for which, level, sign in draw.random((1 if how.policy == "trivial" else how.rand_n, 3)):
        name = names[int(which * len(names))]
        operation = OPERATIONS[name]
        amount = operation.wide * int(level * LEVELS) / (LEVELS - 1) if how.policy == "trivial" else operation.rand * how.magnitude
        chosen.append((name, -amount if operation.signed and sign < 0.5 else amount))
    return chosen


def augment(pixels: np.ndarray, how: Augment, draw: np.random.Generator) -> np.ndarray:
    """Return a changed copy of uint8 [h, w, 3] in the same shape, or the array itself where nothing is drawn; the input is kept.

    TrivialAugment (Müller and Hutter 2021) or RandAugment (Cubuk et al. 2020), then random erasing (Zhong et al. 2020).

    Raises:
        ValueError: pixels of another type or shape, or none.
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        raise ValueError(f"augmentation takes uint8 [h, w, 3]; got {pixels.dtype} {list(pixels.shape)}")
    operations = draw_operations(how, draw)
    if operations:
        image = Image.fromarray(pixels)
        for name, amount in operations:
            image = OPERATIONS[name].apply(image, amount)
        pixels = np.asarray(image)
    return _erase(pixels, how.erase, draw) if how.erase > 0 else pixels


def draw_erased(height: int, width: int, probability: float, draw: np.random.Generator) -> tuple[int, int, int, int] | None:
    """Draw the erased box (top, left, height, width) in whole pixels, or None.

    The area is uniform in ERASED_AREA, the aspect uniform on a logarithmic scale in ERASED_ASPECT. Where such a box does not fit, the
    nearest aspect that does is taken, so that there is always one try; sides are rounded down, so tiny images may get an empty box.
    """
    whether, area, aspect, top, left = draw.random(5).tolist()
    if whether >= probability:
        return None
    low, high = ERASED_AREA
    area = (low + (high - low) * area) * height * width
    low, high = ERASED_ASPECT
    aspect = min(max(low * (high / low) ** aspect, area / width**2), height**2 / area)
    rows, columns = min(height, int((area * aspect) ** 0.5)), min(width, int((area / aspect) ** 0.5))
    return int(top * (height - rows + 1)), int(left * (width - columns + 1)), rows, columns


def _erase(pixels: np.ndarray, probability: float, draw: np.random.Generator) -> np.ndarray:
    box = draw_erased(*pixels.shape[:2], probability, draw)
    if box is None:
        return pixels
    top, left, rows, columns = box
    erased = pixels.copy()
    # Random bytes for each pixel and channel, as in the paper's algorithm, and not the mean colour.
    erased[top : top + rows, left : left + columns] = draw.integers(0, 256, (rows, columns, 3), np.uint8)
    return erased


@dataclass(frozen=True)
class Mix:
    """That a row is mixed, and with which other one."""

    row: int  # the partner, in 0..n_rows-1 of the training set
    kind: str  # mixup or cutmix
    share: float  # the first row's: its weight under mixup; under CutMix what the box would leave it if it were not clipped
    centre: tuple[float, float]  # of CutMix's box, (down, across) in 0..1


def draw_partner(how: Augment, n_rows: int, draw: np.random.Generator) -> Mix | None:
    """Draw whether a row is mixed, how, and with which of n_rows: any, itself too, which changes nothing."""
    if n_rows < 1:
        raise ValueError(f"a partner is drawn from at least one row; got {n_rows}")
    if how.mixup == 0 and how.cutmix == 0:
        return None
    whether, which, down, across = draw.random(4).tolist()
    if whether >= how.mix_share:
        return None
    kind = "mixup" if how.cutmix == 0 or (how.mixup > 0 and which < 0.5) else "cutmix"
    row, alpha = int(draw.integers(n_rows)), getattr(how, kind)
    return Mix(row, kind, float(draw.beta(alpha, alpha)), (down, across))


def cut_box(height: int, width: int, share: float, centre: tuple[float, float]) -> tuple[slice, slice]:
    """Return CutMix's box of an image as (rows, columns): sides of sqrt(1 - share) of the image's, clipped to it, in whole pixels."""
    half = (1 - share) ** 0.5 / 2

    def side(middle: float, length: int) -> slice:
        return slice(round(max(middle - half, 0) * length), round(min(middle + half, 1) * length))

    return side(centre[0], height), side(centre[1], width)


def mix(pixels: np.ndarray, other_pixels: np.ndarray, how: Mix) -> tuple[np.ndarray, float]:
    """Mix two uint8 [h, w, 3]; return (uint8 [h, w, 3], the first one's share of the label in 0..1).

    mixup (Zhang et al. 2018): the mean weighted by the share, rounded. CutMix (Yun et al. 2019): a box of the other picture in the
    first one; the share is the exact part of the pixels that stay, after clipping.

    Raises:
        ValueError: two shapes.
    """
    if pixels.shape != other_pixels.shape:
        raise ValueError(f"pictures of one shape are mixed; got {list(pixels.shape)} and {list(other_pixels.shape)}")
    if how.kind == "mixup":
        weighted = np.multiply(pixels, how.share, dtype=np.float32)
        weighted += np.multiply(other_pixels, 1 - how.share, dtype=np.float32)
        return np.rint(weighted, out=weighted).astype(np.uint8), how.share
    box = cut_box(*pixels.shape[:2], how.share, how.centre)
    mixed = pixels.copy()
    mixed[box] = other_pixels[box]
    return mixed, 1 - mixed[box].size / mixed.size


def training_view(
    row: int, n_rows: int, how: Augment, generator_of: Callable, read: Callable, partner_of: Callable = int
) -> tuple[np.ndarray, int, float]:
    """Return a row's (picture, partner, its own share of the label): all of this module in one call.

    The label is share x the row's own + (1 - share) x the partner's. A row that is not mixed is its own partner, with share 1.

    Args:
        generator_of: (row) -> a fresh generator keyed by seed, epoch and row.
        read: (row, its generator) -> uint8 [h, w, 3]; draws crop and flip from the generator. Called twice for a mixed row.
        partner_of: the number that is drawn for a partner, in 0..n_rows-1 -> its row; where rows are not drawn evenly.
    """

    def own(row: int) -> tuple[np.ndarray, np.random.Generator]:
        draw = generator_of(row)
        return augment(read(row, draw), how, draw), draw

    pixels, draw = own(row)
    partner = draw_partner(how, n_rows, draw)
    if partner is None:
        return pixels, row, 1.0
    other = partner_of(partner.row)
    mixed, share = mix(pixels, own(other)[0], partner)
    return mixed, other, share
