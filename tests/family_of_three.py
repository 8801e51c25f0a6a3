"""A general model and two submodels as bundles, with their dataset and chains of them: a fixture of several modules."""

import io

import numpy as np
import pytest
from PIL import Image

from family.chains import write_chain
from family.data.importing import import_dataset
from family.data.ontology import from_leaves

TREE = from_leaves([
    ("laptop", "Electronics/Computers/Laptops"), ("tower", "Electronics/Computers/Desktops"), ("phone", "Electronics/Phones"),
    ("cat", "Animals/Pets/Cats"), ("dog", "Animals/Pets/Dogs"), ("art", "Art"),
])  # fmt: skip
SUBTREES = {"electronics": ["Electronics"], "animals": ["Animals"]}
SIZES = {"general": 32, "electronics": 24, "animals": 40}


@pytest.fixture(scope="module")
def family_of_three(tmp_path_factory, write_source, write_bundle):
    """A dataset of flat photos, a bundle for the whole tree and one for each of two verticals, all of other sizes, and both chains."""
    folder = tmp_path_factory.mktemp("chain")
    rng = np.random.default_rng(0)
    rows, images = [], {}
    for k in range(96):
        buffer = io.BytesIO()
        Image.new("RGB", (48, 40), tuple(int(v) for v in rng.integers(0, 256, 3))).save(buffer, "PNG")
        rows.append(
            {
                "listing_id": f"{k // 2:02}",
                "image": f"{k}.png",
                "category": TREE.leaves[k // 2 % 6],
                "split": "test" if k >= 12 else "train",
            }
        )
        images[f"{k}.png"] = buffer.getvalue()
    leaves = [(leaf, TREE.path_of[leaf]) for leaf in TREE.leaves]
    import_dataset(write_source(folder / "src", rows, ontology=leaves, images=images), folder / "data")
    for scope, px in SIZES.items():
        tree = TREE.subset(SUBTREES[scope]) if scope in SUBTREES else TREE
        changes = {"scope": scope, "subtrees": SUBTREES.get(scope), "dataset": {"ontology_digest": TREE.digest}}
        write_bundle(folder / scope, tree, px, schemes=("fp32", "int8"), **changes)
    for routing in ("hard", "soft"):
        write_chain(folder / f"{routing}.toml", folder / "general", {name: folder / name for name in SUBTREES}, routing)
    return folder
