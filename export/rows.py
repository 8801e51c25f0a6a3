"""Which rows an export may see: training rows for ranges, validation rows to judge, test rows never. No TensorFlow."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from export.verify import n_to_pass
from family.data.dataset import Dataset, Rows, open_dataset
from family.data.order import choose_balanced
from family.data.splits import HELD_BACK
from family.errors import UserError

N_CALIBRATION = 128
N_RANKED_ON = 128
N_SAMPLED_FROM = 5000  # validation images, of which a bundle stores some
N_JUDGED_ON = 5000  # validation images, where there are as many, and a scheme that loses nothing needs no more


def calibration_rows(dataset: Dataset, card: dict) -> tuple[Rows, Rows]:
    """Return training rows for ranges, and others to rank candidates on, the classes of both as even as they go.

    An image that is held back in the dataset is in neither: a split that a user brought may have it on both sides.
    """
    train = dataset.rows("train", dataset.scope_of(card))
    train = train.take(np.flatnonzero(~np.isin(_contents(train.images), _contents(_images(dataset, HELD_BACK).to_pylist()))))
    if len(train) < 2:
        raise UserError(f"{dataset.folder} has no training images that are not held back too, so int8 can't be calibrated")
    chosen = choose_balanced(train.labels, N_CALIBRATION + N_RANKED_ON)
    ranked_on = np.zeros(len(chosen), bool)
    ranked_on[np.random.default_rng(0).permutation(len(chosen))[: len(chosen) * N_RANKED_ON // (N_CALIBRATION + N_RANKED_ON)]] = True
    return train.take(chosen[~ranked_on]), train.take(chosen[ranked_on])


def held_back_rows(dataset: Dataset, card: dict) -> Rows:
    """Return all validation rows.

    Test rows are never touched here, and training rows would flatter what was calibrated on them.
    """
    try:
        return dataset.rows("val", dataset.scope_of(card))
    except UserError as error:
        raise UserError(f"{error}; an export is judged on validation rows") from error


def draw(rows: Rows, at_most: int) -> Rows:
    """Return so many of the rows, drawn with a seed, or all."""
    return rows.take(np.sort(np.random.default_rng(0).permutation(len(rows))[:at_most]))


def n_to_judge_on(labels: np.ndarray, max_drop_points: float) -> int:
    """Return how many of these validation rows a scheme is judged on: N_JUDGED_ON, or as many as one needs to pass that loses nothing, where there are."""
    return max(N_JUDGED_ON, n_to_pass(labels, max_drop_points) or 0)


def check_calibration(dataset: Dataset, card: dict) -> str:
    """Return a warning where it can't be told whether a dataset's training rows are held back in the run's own dataset, or "".

    Raises:
        UserError: they are.
    """
    own = card.get("dataset", {})
    if own.get("digest") == dataset.digest:
        return ""
    try:
        earlier = open_dataset(Path(own["folder"]))
        if earlier.digest != own["digest"]:
            raise UserError("changed")
        held_back = {split: _contents_array(_images(earlier, (split,))) for split in HELD_BACK}
    except (UserError, KeyError, OSError):
        return (f"warning: the dataset of the run ({own.get('folder')}) is not there any more, or was changed: whether int8 is calibrated on images "
                "that are held back in it can't be told")  # fmt: skip
    train = _contents_array(_images(dataset, ("train",)))
    found = {split: pc.sum(pc.is_in(images, train)).as_py() or 0 for split, images in held_back.items()}
    if any(found.values()):
        told = " and ".join(f"{n:,} of the {len(held_back[split]):,} {split} images" for split, n in found.items() if n)
        raise UserError(f"--calibrate {dataset.folder}: its training rows hold {told} of {earlier.folder}, on which the run is judged; leave "
                        f"--calibrate out, or `family data import ... --splits-of {earlier.folder}` keeps them apart")  # fmt: skip
    return ""


def _images(dataset: Dataset, splits: tuple[str, ...]) -> pa.ChunkedArray:
    return dataset.table.filter(pc.is_in(dataset.table["split"], pa.array(splits)))["image"]


def _contents_array(images: pa.ChunkedArray) -> pa.Array:
    return pa.array(_contents(images.to_pylist()), pa.string())  # of none, the type would be that of nothing


def _contents(images: Iterable[str]) -> list[str]:
    """Return the sha256 of each image's bytes, which names it in a dataset folder."""
    return [Path(image).stem for image in images]
