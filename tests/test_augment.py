"""Augmentation: every operation against arithmetic of its own, the draws against the papers' ranges, and nothing but one generator."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from family.data.augment import (
    FILL,
    OPERATIONS,
    Augment,
    Mix,
    augment,
    cut_box,
    draw_erased,
    draw_operations,
    draw_partner,
    mix,
    training_view,
)
from family.errors import UserError

SIZES = [(1, 1), (1, 9), (9, 1), (2, 3), (33, 7), (7, 33), (32, 32)]
POLICIES = [Augment("trivial"), Augment("rand", rand_n=3, magnitude=1.0), Augment("rand", erase=1.0), Augment(erase=0.5)]


def generator(*key: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=key))


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return generator(seed, 9).integers(0, 256, (height, width, 3), np.uint8)


def smooth(height: int, width: int) -> np.ndarray:
    """Return colours that run across the picture: interpolating between neighbours changes little."""
    down, across = np.mgrid[0:height, 0:width] / max(height, width)
    return np.stack([40 + 150 * down, 200 - 120 * across, 60 + 80 * (down + across)], -1).astype(np.uint8)


def apply(name: str, pixels: np.ndarray, amount: float) -> np.ndarray:
    return np.asarray(OPERATIONS[name].apply(Image.fromarray(pixels), amount))


def sampled(pixels: np.ndarray, source: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Interpolate at source [h, w, 2] (y and x of pixel centres, from 0); return (float [h, w, 3], what lies inside, bool [h, w])."""
    height, width, _ = pixels.shape
    limits = np.array([height - 1, width - 1])
    inside = ((source > -0.5) & (source < limits + 0.5)).all(-1)
    base = np.floor(source).astype(int)
    part = source - base
    total = np.zeros(pixels.shape)
    for step in ((0, 0), (0, 1), (1, 0), (1, 1)):
        weight = np.prod(np.where(step, part, 1 - part), -1)
        at = np.clip(base + step, 0, limits)
        total += weight[..., None] * pixels[at[..., 0], at[..., 1]]
    return total, inside


# The fields


@pytest.mark.parametrize(
    "field",
    [{"rand_n": 0}, {"rand_n": 21}, {"magnitude": -0.1}, {"magnitude": 1.1}, {"magnitude": float("nan")}, {"erase": 2.0}, {"mix_share": -1.0}]
    + [{key: value} for key in ("mixup", "cutmix") for value in (-0.2, 0.001, 101.0, float("inf"), float("nan"))],
)  # fmt: skip
def test_a_field_out_of_range_is_named_with_what_is_allowed(field):
    (key, value), *_ = field.items()
    with pytest.raises(UserError, match=rf"{key} = {value!r} is out of range; allowed: \d") as error:
        Augment(**field)
    assert error.value.exit_code == 2


def test_an_unknown_policy_gets_the_nearest():
    with pytest.raises(UserError, match="Did you mean 'trivial'"):
        Augment("trival")


def test_the_ends_of_the_ranges_are_allowed():
    for value in (0, 1):
        Augment("rand", rand_n=1, magnitude=value, erase=value, mix_share=value)
    Augment(mixup=0.01, cutmix=100, rand_n=20)


# Operations


def test_the_operations_are_those_of_both_papers_with_their_ranges():
    found = {name: (operation.rand, operation.wide, operation.signed) for name, operation in OPERATIONS.items()}
    assert found == {
        "identity": (0, 0, False), "autocontrast": (0, 0, False), "equalize": (0, 0, False), "rotate": (30, 135, True),
        "solarize": (256, 256, False), "posterize": (4, 6, False), "color": (0.9, 0.99, True), "contrast": (0.9, 0.99, True),
        "brightness": (0.9, 0.99, True), "sharpness": (0.9, 0.99, True), "shear-x": (0.3, 0.99, True), "shear-y": (0.3, 0.99, True),
        "translate-x": (150 / 331, 1 / 7, True), "translate-y": (150 / 331, 1 / 7, True),
    }  # fmt: skip


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", sorted(OPERATIONS.keys() - {"autocontrast", "equalize"}))
def test_magnitude_0_changes_nothing(name, size):
    assert np.array_equal(apply(name, noise(*size), 0.0), noise(*size))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", OPERATIONS)
def test_shapes_stay_and_every_size_works(name, size):
    for amount in (OPERATIONS[name].wide, OPERATIONS[name].rand, *([-OPERATIONS[name].wide] if OPERATIONS[name].signed else [])):
        found = apply(name, noise(*size), amount)
        assert found.shape == (*size, 3) and found.dtype == np.uint8


@pytest.mark.parametrize("amount", [0, 1, 77, 128, 213.3, 255, 256])
def test_solarize_inverts_what_is_bright(amount):
    pixels = noise(40, 40)
    assert np.array_equal(apply("solarize", pixels, amount), np.where(pixels >= 256 - round(amount), 255 - pixels, pixels))


@pytest.mark.parametrize("amount", [0, 0.4, 1, 2.6, 4, 6])
def test_posterize_keeps_the_high_bits(amount):
    pixels, step = noise(40, 40), 2 ** round(amount)
    assert np.array_equal(apply("posterize", pixels, amount), pixels // step * step)


def grey(pixels: np.ndarray) -> np.ndarray:
    return (pixels @ np.array([0.299, 0.587, 0.114]) + 0.5).astype(np.uint8)  # ITU-R 601


def blurred(pixels: np.ndarray) -> np.ndarray:
    """Return the mean over 3 x 3 pixels in which the middle counts five times; the border stays."""
    wide, found = pixels.astype(float), pixels.astype(float)
    height, width, _ = pixels.shape
    around = sum(wide[1 + y : height - 1 + y, 1 + x : width - 1 + x] for y in (-1, 0, 1) for x in (-1, 0, 1))
    found[1:-1, 1:-1] = (around + 4 * wide[1:-1, 1:-1]) / 13
    return found


@pytest.mark.parametrize("amount", [-0.99, -0.9, -0.27, 0.4, 0.99])
@pytest.mark.parametrize(
    ("name", "dull"),
    [
        ("brightness", lambda pixels: np.zeros(pixels.shape)),
        ("contrast", lambda pixels: np.full(pixels.shape, np.rint(grey(pixels).mean()))),
        ("color", lambda pixels: np.repeat(grey(pixels)[..., None], 3, -1)),
        ("sharpness", blurred),
    ],
)
def test_enhancing_moves_away_from_a_dull_picture_or_towards_it(name, dull, amount):
    for pixels in (noise(30, 21), smooth(30, 21)):
        wanted = np.clip(dull(pixels) + (1 + amount) * (pixels.astype(float) - dull(pixels)), 0, 255)
        assert np.abs(apply(name, pixels, amount) - wanted).max() <= 2  # two roundings


def test_brightness_at_its_lowest_is_nearly_black():
    assert apply("brightness", noise(20, 20), -0.99).max() <= 2


def test_autocontrast_stretches_every_channel_to_the_full_range():
    pixels = (noise(30, 30) // 4 + np.array([10, 60, 150])).astype(np.uint8)
    low, high = pixels.min((0, 1)).astype(float), pixels.max((0, 1)).astype(float)
    found = apply("autocontrast", pixels, 0)
    assert np.abs(found - (pixels - low) * 255 / (high - low)).max() <= 1
    assert found.min((0, 1)).tolist() == [0, 0, 0] and found.max((0, 1)).tolist() == [255, 255, 255]
    flat = np.full((5, 5, 3), 90, np.uint8)
    assert np.array_equal(apply("autocontrast", flat, 0), flat)


def test_equalize_gives_every_channel_an_even_distribution():
    pixels = (255 * (noise(120, 120) / 255.0) ** 3).astype(np.uint8)
    found = apply("equalize", pixels, 0)
    for channel in range(3):
        before, after = pixels[..., channel].ravel(), found[..., channel].ravel()
        order = np.argsort(before, kind="stable")
        assert (np.diff(after[order].astype(int)) >= 0).all()  # no brighter pixel gets darker
        for value in range(16, 256, 16):
            heaviest = np.unique(before, return_counts=True)[1].max() / before.size  # pixels of one value stay together
            assert abs((after < value).mean() - value / 256) <= heaviest + 0.02
        assert abs((before < 64).mean() - 64 / 256) > 0.2


@pytest.mark.parametrize("size", [(30, 30), (33, 7), (7, 33)])
@pytest.mark.parametrize("amount", [-0.99, -0.3, 0.1, 0.99])
def test_shears_against_interpolation_in_numpy(amount, size):
    pixels = smooth(*size)
    y, x = np.mgrid[0 : size[0], 0 : size[1]].astype(float)
    # Pillow's axes run through the corner of the first pixel, whose centre is at (0.5, 0.5).
    for name, source in (
        ("shear-x", np.stack([y, x + amount * (y + 0.5)], -1)),
        ("shear-y", np.stack([y + amount * (x + 0.5), x], -1)),
    ):
        wanted, inside = sampled(pixels, source)
        found = apply(name, pixels, amount)
        assert np.abs(found[inside] - wanted[inside]).max() <= 1
        assert (found[~inside] == FILL).all() and not inside.all()


@pytest.mark.parametrize("size", [(30, 30), (33, 7), (8, 33)])
@pytest.mark.parametrize("degrees", [-135, -30, 4.5, 60])
def test_rotations_against_interpolation_in_numpy(degrees, size):
    pixels, angle = smooth(*size), np.deg2rad(degrees)
    y, x = np.mgrid[0 : size[0], 0 : size[1]].astype(float)
    y, x = y - (size[0] - 1) / 2, x - (size[1] - 1) / 2
    # Counterclockwise, with y downwards: each pixel looks back clockwise.
    source = np.stack([np.sin(angle) * x + np.cos(angle) * y, np.cos(angle) * x - np.sin(angle) * y], -1)
    wanted, inside = sampled(pixels, source + np.array([(size[0] - 1) / 2, (size[1] - 1) / 2]))
    found = apply("rotate", pixels, degrees)
    assert np.abs(found[inside] - wanted[inside]).max() <= 1
    assert (found[~inside] == FILL).all() and not inside.all()


def test_the_fill_is_the_mean_colour_of_imagenet():
    assert list(FILL) == np.rint(255 * np.array([0.485, 0.456, 0.406])).tolist()


def test_a_quarter_turn_is_exact():
    assert np.array_equal(apply("rotate", noise(32, 32), 90), np.rot90(noise(32, 32)))


def test_translations_move_whole_pixels_and_fill():
    pixels = noise(20, 40)
    right, left = apply("translate-x", pixels, -0.25), apply("translate-x", pixels, 0.25)
    assert np.array_equal(right[:, 10:], pixels[:, :-10]) and (right[:, :10] == FILL).all()
    assert np.array_equal(left[:, :-10], pixels[:, 10:]) and (left[:, -10:] == FILL).all()
    down, up = apply("translate-y", pixels, -0.25), apply("translate-y", pixels, 0.25)
    assert np.array_equal(down[5:], pixels[:-5]) and (down[:5] == FILL).all()
    assert np.array_equal(up[:-5], pixels[5:]) and (up[-5:] == FILL).all()


def test_translations_are_the_papers_pixels_at_their_sizes():
    moved = apply("translate-x", noise(4, 224), OPERATIONS["translate-x"].wide)
    assert np.array_equal(moved[:, :-32], noise(4, 224)[:, 32:])
    moved = apply("translate-y", noise(331, 4), OPERATIONS["translate-y"].rand)
    assert np.array_equal(moved[:-150], noise(331, 4)[150:])


# Draws


def test_trivial_draws_one_operation_and_any_magnitude_evenly():
    n, draw = 42_000, generator(1, 2)
    drawn = [draw_operations(Augment("trivial"), draw) for _ in range(n)]
    assert all(len(operations) == 1 for operations in drawn)
    names = [operations[0][0] for operations in drawn]
    spread = (n / 14) ** 0.5
    assert all(abs(names.count(name) - n / 14) < 4.5 * spread for name in OPERATIONS) and set(names) == set(OPERATIONS)
    for name, operation in OPERATIONS.items():
        amounts = np.array([operations[0][1] for operations in drawn if operations[0][0] == name])
        if operation.wide == 0:
            assert not amounts.any()
            continue
        levels, counts = np.unique(np.rint(np.abs(amounts) / operation.wide * 30), return_counts=True)
        assert np.allclose(np.abs(amounts) / operation.wide * 30, np.rint(np.abs(amounts) / operation.wide * 30))
        assert levels.tolist() == list(range(31)) and np.abs(counts - len(amounts) / 31).max() < 4.5 * (len(amounts) / 31) ** 0.5
        negative = (amounts[amounts != 0] < 0).mean()
        assert abs(negative - 0.5) < 0.05 if operation.signed else negative == 0


def test_rand_draws_n_operations_of_one_magnitude():
    how, draw = Augment("rand", rand_n=3, magnitude=0.5), generator(1, 3)
    drawn = [draw_operations(how, draw) for _ in range(14_000)]
    assert {len(operations) for operations in drawn} == {3}
    for place in range(3):
        names = [operations[place][0] for operations in drawn]
        assert all(abs(names.count(name) - 1000) < 140 for name in OPERATIONS)
    assert any(operations[0][0] == operations[1][0] for operations in drawn)  # with replacement
    for name, amount in (pair for operations in drawn for pair in operations):
        assert abs(amount) == OPERATIONS[name].rand * 0.5 and (amount >= 0 or OPERATIONS[name].signed)


def test_the_draws_of_a_key_stay_what_they_are():
    assert draw_operations(Augment("rand", magnitude=0.5), generator(7, 3)) == [("color", -0.45), ("solarize", 128.0)]
    assert draw_operations(Augment("trivial"), generator(7, 3)) == [("color", pytest.approx(-0.99 * 22 / 30))]
    assert draw_erased(224, 200, 1.0, generator(7, 3)) == (52, 14, 60, 179)
    found = draw_partner(Augment(mixup=0.2, cutmix=1.0), 1000, generator(7, 3))
    assert (found.row, found.kind, found.share) == (967, "cutmix", pytest.approx(0.2759146983590684))
    assert found.centre == pytest.approx((0.05025403948627161, 0.31612687235830494))


def test_the_order_of_the_draws_is_the_one_that_is_documented():
    for how, numbers in ((Augment(), 0), (Augment("trivial"), 3), (Augment("rand", rand_n=4), 12), (Augment("trivial", erase=1e-9), 8)):
        used, counted = generator(1, 4), generator(1, 4)
        augment(noise(32, 32), how, used)
        counted.random(numbers)
        assert used.random() == counted.random()
    used = generator(1, 4)
    assert draw_partner(Augment("trivial", erase=1.0), 10, used) is None
    assert used.random() == generator(1, 4).random()


# Erasing


@pytest.mark.parametrize("size", [(224, 224), (33, 7), (50, 300), (1, 1000), (3, 3), (1, 1)])
def test_the_erased_box_has_an_area_and_an_aspect_within_range(size):
    height, width, draw = *size, generator(1, 5)
    boxes = [draw_erased(height, width, 1.0, draw) for _ in range(3000)]
    for top, left, rows, columns in boxes:
        assert min(top, left) >= 0 and top + rows <= height and left + columns <= width
        # Sides are rounded down, so the drawn ones are at most a pixel longer.
        assert rows * columns <= 0.33 * height * width and (rows + 1) * (columns + 1) > 0.02 * height * width
        if size == (224, 224):
            assert (rows + 1) / columns >= 0.3 and rows / (columns + 1) <= 3.3
    if size == (224, 224):
        areas = np.array([rows * columns for _, _, rows, columns in boxes]) / (height * width)
        assert areas.min() < 0.025 and areas.max() > 0.32 and abs(areas.mean() - (0.02 + 0.33) / 2) < 0.01
        logs = np.log([rows / columns for _, _, rows, columns in boxes])
        assert abs(np.median(logs)) < 0.08 and logs.min() < -1.1 and logs.max() > 1.1
        ends = np.array([(top, left, height - top - rows, width - left - columns) for top, left, rows, columns in boxes])
        assert (ends.min(0) == 0).all() and np.ptp(ends.mean(0)) < 6


def test_erasing_changes_one_box_to_random_bytes_as_often_as_asked():
    pixels, erased = np.zeros((64, 48, 3), np.uint8), 0
    for row in range(2000):
        found = augment(pixels, Augment(erase=0.3), generator(1, row))
        box = draw_erased(64, 48, 0.3, generator(1, row))
        erased += box is not None
        if box is None:
            assert not found.any()
            continue
        top, left, rows, columns = box
        inside = found[top : top + rows, left : left + columns].astype(int)
        assert found.astype(int).sum() == inside.sum()
        assert abs(inside.mean() - 127.5) < 6 * 74 / inside.size**0.5 and abs(inside[..., 0] - inside[..., 1]).max() > 0
    assert abs(erased - 600) < 4.5 * (2000 * 0.3 * 0.7) ** 0.5


# Mixing


def test_partners_are_any_row_and_both_kinds_get_half():
    how, draw = Augment(mixup=0.2, cutmix=1.0, mix_share=0.6), generator(1, 6)
    drawn = [draw_partner(how, 10, draw) for _ in range(20_000)]
    mixes = [found for found in drawn if found]
    assert abs(len(mixes) - 12_000) < 320
    assert abs(sum(found.kind == "mixup" for found in mixes) - len(mixes) / 2) < 250
    rows, counts = np.unique([found.row for found in mixes], return_counts=True)
    assert rows.tolist() == list(range(10)) and np.abs(counts - len(mixes) / 10).max() < 150
    for kind, alpha in (("mixup", 0.2), ("cutmix", 1.0)):
        shares = np.array([found.share for found in mixes if found.kind == kind])
        assert abs(shares.mean() - 0.5) < 0.025
        assert abs(shares.var() - 1 / (4 * (2 * alpha + 1))) < 0.01  # of Beta(alpha, alpha)
    centres = np.array([found.centre for found in mixes])
    assert np.abs(centres.mean(0) - 0.5).max() < 0.015 and centres.min() >= 0 and centres.max() < 1


@pytest.mark.parametrize(("how", "kinds"), [(Augment(mixup=1.0), {"mixup"}), (Augment(cutmix=1.0), {"cutmix"})])
def test_one_kind_alone_mixes_every_row(how, kinds):
    draw = generator(1, 7)
    assert {draw_partner(how, 5, draw).kind for _ in range(300)} == kinds
    assert draw_partner(how, 1, draw).row == 0
    with pytest.raises(ValueError, match="at least one row; got 0"):
        draw_partner(how, 0, draw)


def test_no_row_is_mixed_at_share_0():
    draw = generator(1, 8)
    assert {draw_partner(Augment(mixup=1.0, cutmix=1.0, mix_share=0.0), 5, draw) for _ in range(300)} == {None}


@pytest.mark.parametrize("share", [0.0, 0.25, 1 / 3, 0.5, 0.917, 1.0])
def test_mixup_is_the_rounded_mean_for_every_pair_of_bytes(share):
    first, second = np.meshgrid(np.arange(256), np.arange(256))
    first, second = (np.stack([values] * 3, -1).astype(np.uint8) for values in (first, second))
    mixed, found = mix(first, second, Mix(0, "mixup", share, (0, 0)))
    assert found == share and mixed.dtype == np.uint8
    assert np.abs(mixed - (share * first.astype(float) + (1 - share) * second)).max() <= 0.5 + 1e-4


@given(st.integers(1, 40), st.integers(1, 40), st.floats(0, 1), st.tuples(st.floats(0, 1), st.floats(0, 1)))
def test_the_share_of_cutmix_is_what_is_counted(height, width, share, centre):
    first, second = np.zeros((height, width, 3), np.uint8), np.ones((height, width, 3), np.uint8)
    mixed, found = mix(first, second, Mix(0, "cutmix", share, centre))
    assert not first.any()
    assert found == pytest.approx((mixed == 0).mean(), abs=1e-12)
    assert mixed.shape == first.shape and (mixed[..., 0] == mixed[..., 2]).all()
    box = cut_box(height, width, share, centre)
    assert mixed[box].all() and mixed[..., 0].sum() == mixed[box][..., 0].size
    # Clipping and rounding only ever change the box by what lies outside of the picture, and by half a pixel an edge.
    assert found >= share - (height + width + 1) / (height * width)


def test_a_box_inside_the_picture_leaves_the_share_that_was_asked():
    assert cut_box(200, 100, 0.75, (0.5, 0.5)) == (slice(50, 150), slice(25, 75))
    assert cut_box(200, 100, 0.75, (0.0, 1.0)) == (slice(0, 50), slice(75, 100))
    assert mix(noise(200, 100), noise(200, 100), Mix(0, "cutmix", 0.75, (0.0, 1.0)))[1] == 0.9375


def test_pictures_of_two_shapes_are_refused():
    with pytest.raises(ValueError, match="one shape"):
        mix(noise(4, 4), noise(4, 5), Mix(0, "mixup", 0.5, (0, 0)))


# The whole


@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from(POLICIES), st.integers(0, 2**32))
def test_a_picture_is_a_pure_function_of_pixels_and_generator(height, width, how, seed):
    pixels = noise(height, width, seed)
    kept = pixels.copy()
    np.random.seed(1)
    random.seed(1)
    first = augment(pixels, how, generator(seed, 1))
    np.random.seed(2)
    random.seed(2)
    augment(noise(5, 5), how, generator(seed, 2))
    assert np.array_equal(first, augment(pixels, how, generator(seed, 1)))
    assert np.array_equal(pixels, kept)
    assert first.shape == pixels.shape and first.dtype == np.uint8


def test_a_mirrored_view_and_read_only_pixels_are_taken_as_they_are():
    pixels = noise(32, 32)
    pixels.setflags(write=False)
    for how in POLICIES:
        found = [augment(p, how, generator(3, 3)) for p in (pixels[:, ::-1], np.ascontiguousarray(pixels[:, ::-1]))]
        assert np.array_equal(*found)


def test_without_a_policy_the_pixels_stay():
    pixels = noise(8, 8)
    assert augment(pixels, Augment(), generator(0, 0)) is pixels
    assert augment(pixels, Augment("rand", magnitude=0.0), generator(0, 1)).shape == pixels.shape


@pytest.mark.parametrize("how", POLICIES[:3])
def test_rows_get_pictures_of_their_own(how):
    assert len({augment(noise(32, 32), how, generator(0, row)).tobytes() for row in range(40)}) > 20


@pytest.mark.parametrize(
    "pixels", [np.zeros((4, 4, 3), np.float32), np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), noise(0, 4)]
)
def test_other_arrays_are_refused(pixels):
    with pytest.raises(ValueError, match=r"takes uint8 \[h, w, 3\]"):
        augment(pixels, Augment("trivial"), generator(0, 0))


def view(row: int, how: Augment, read=None) -> tuple[np.ndarray, int, float]:
    return training_view(
        row, 6, how, lambda row: generator(5, row), read or (lambda row, draw: np.roll(noise(24, 24, row), int(8 * draw.random()), 1))
    )


@pytest.mark.parametrize("how", [Augment("trivial", mixup=1.0), Augment("rand", erase=0.5, mixup=0.2, cutmix=1.0, mix_share=0.7)])
def test_a_view_mixes_the_pictures_that_both_rows_have_themselves(how):
    alone = Augment(how.policy, how.rand_n, how.magnitude, how.erase)
    mixed = 0
    for row in range(6):
        pixels, partner, share = view(row, how)
        own, other = view(row, alone), view(partner, alone)
        assert own[1:] == (row, 1.0)
        draw = generator(5, row)
        augment(noise(24, 24, row), how, (draw.random(), draw)[1])
        drawn = draw_partner(how, 6, draw)
        if drawn is None:
            assert (partner, share) == (row, 1.0) and np.array_equal(pixels, own[0])
            continue
        mixed += 1
        wanted, wanted_share = mix(own[0], other[0], drawn)
        assert (partner, share) == (drawn.row, wanted_share) and np.array_equal(pixels, wanted)
    assert mixed >= 3


def test_a_view_does_not_depend_on_the_order_of_rows():
    how = Augment("trivial", erase=0.3, cutmix=1.0)
    forwards = {row: view(row, how) for row in range(6)}
    for row in reversed(range(6)):
        again = view(row, how)
        assert np.array_equal(again[0], forwards[row][0]) and again[1:] == forwards[row][1:]


def test_a_row_that_is_not_mixed_is_read_once():
    reads = []
    read = lambda row, draw: (reads.append(row), noise(8, 8, row))[1]  # noqa: E731
    view(3, Augment("trivial"), read)
    assert reads == [3]
    _, partner, _ = view(3, Augment(mixup=1.0), read)
    assert reads == [3, 3, partner]
