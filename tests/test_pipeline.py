"""Batches of training: what a row's picture and labels are made of, at any number of ranks."""

import numpy as np
import pytest
from trainings import family

pytest.importorskip("tf_keras")

from family.data.augment import training_view  # noqa: E402
from family.data.crops import draw_crop, row_draws  # noqa: E402
from family.data.dataset import open_dataset  # noqa: E402
from family.data.images import Preprocessing, decode_image  # noqa: E402
from family.data.order import epoch_slices  # noqa: E402
from family.data.pipeline import training_batches  # noqa: E402
from family.recipe import make_recipe  # noqa: E402

HOW = Preprocessing(32)
RECIPE = make_recipe({"resolution_px": 32, "augment": "trivial", "erase": 0.3, "mixup": 0.4, "cutmix": 1.0, "mix_share": 0.7, "seed": 5})


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    out = tmp_path_factory.mktemp("made-up") / "dataset"
    family("data", "synth", out, "--listings", 40, "--categories", 12)
    return open_dataset(out).rows("train")


def batches(rows, rank, size):
    slices = epoch_slices(len(rows), 7, RECIPE.seed, 2, rank, size)
    return [(np.asarray(images), labels, weights) for images, labels, weights, *_ in training_batches(rows, slices, HOW, RECIPE, 2)]


def test_ranks_see_the_pictures_and_labels_of_one_process(rows):
    whole, *ranks = batches(rows, 0, 1), batches(rows, 0, 2), batches(rows, 1, 2)
    for update, parts in zip(whole, zip(*ranks, strict=True), strict=True):
        for of_whole, of_parts in zip(update, zip(*parts, strict=True), strict=True):
            np.testing.assert_array_equal(of_whole, np.concatenate(of_parts))


def test_a_mixed_row_has_two_labels_and_their_shares(rows):
    def read(row, draw):
        box, flip = draw_crop(RECIPE, draw)
        pixels = decode_image(rows.read(row), HOW, box)
        return pixels[:, ::-1] if flip else pixels

    order = np.concatenate([own for own, *_ in epoch_slices(len(rows), 7, RECIPE.seed, 2, 0, 1)])
    images, labels, weights = (np.concatenate(parts) for parts in zip(*batches(rows, 0, 1), strict=True))
    shares = []
    for place, row in enumerate(order.tolist()):
        pixels, partner, share = training_view(row, len(rows), RECIPE.augmentation, lambda row: row_draws(RECIPE.seed, 2, row), read)
        np.testing.assert_array_equal(images[place], pixels)
        assert labels[place].tolist() == [rows.labels[row], rows.labels[partner]]
        assert weights[place] == pytest.approx([share, 1 - share], abs=1e-6)
        shares.append(share)
    assert 0.3 < np.mean(np.array(shares) < 1) < 1


def test_without_augmentation_a_row_has_its_label_alone(rows):
    recipe = make_recipe({"resolution_px": 32})
    slices = epoch_slices(len(rows), 7, 0, 0, 0, 1)
    for (own, *_), (_, labels, weights, *_) in zip(slices, training_batches(rows, slices, HOW, recipe, 0), strict=True):
        np.testing.assert_array_equal(labels, np.stack([rows.labels[own]] * 2, 1))
        np.testing.assert_array_equal(weights, [[1, 0]] * len(own))
