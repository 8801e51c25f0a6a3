"""What is said before a training begins: that it will be slow, or that what it starts from has seen what it will be tested on."""

from pathlib import Path

import pyarrow.compute as pc

from family.card import FILE as CARD
from family.card import read_card
from family.data.dataset import Dataset, open_dataset
from family.data.splits import HELD_BACK
from family.errors import UserError
from family.machine import cpu_flags
from family.recipe import Recipe

BFLOAT16 = {"avx512_bf16", "amx_bf16"}


def warn_of_precision(recipe: Recipe, gpu: str | None) -> str:
    """Return a warning where 16-bit arithmetic is asked for and there are no instructions for it, or ""."""
    if recipe.precision == "float32" or gpu is not None or cpu_flags() & BFLOAT16:
        return ""
    return f"warning: precision = {recipe.precision}, and this processor has no instructions for it: it will be slow. --set precision=float32"


def warn_of_seen(run: Path, dataset: Dataset) -> str:
    """Return a warning where a run learned from images that are held back here, or where that can't be told, or "".

    Images are told by their content, which names them in a dataset folder.

    Args:
        run: what `--weights` or `--teacher` names; a file or a download has no card, and nothing is said of it.
    """
    if not (run / CARD).is_file():
        return ""
    learned = read_card(run).get("dataset", {})
    if not learned or learned.get("digest") == dataset.digest:
        return ""
    try:
        earlier = open_dataset(Path(learned["folder"]))
        if earlier.digest != learned["digest"]:
            raise UserError("changed")
    except (UserError, KeyError, OSError):
        return (f"warning: {run} learned from another version of the data ({learned.get('folder')}), which is not there any more: whether it saw what is "
                "held back here can't be told")  # fmt: skip
    trained = earlier.table.filter(pc.equal(earlier.table["split"], "train"))["image"].combine_chunks()
    held_back = dataset.table.filter(pc.or_(*(pc.equal(dataset.table["split"], split) for split in HELD_BACK)))
    n = pc.sum(pc.is_in(held_back["image"], trained)).as_py() or 0
    if not n:
        return ""
    return (f"warning: {run} learned from {n:,} of the {held_back.num_rows:,} images that are held back here, which flatters what is measured on them. "
            f"`family data import ... --splits-of {earlier.folder}` keeps them apart")  # fmt: skip
