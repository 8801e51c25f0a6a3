"""A bundle where nothing of ours is installed: NumPy and ONNX Runtime alone open it and give the stored answers.

A process whose imports are refused, instead of an environment that pip fills: it says the same about the files without a network, in two
seconds. A real such environment, and that `.[serve]` installs into an empty one, are held by test_journey.py.
"""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")
from readme_lines import snippet  # noqa: E402
from small_models import N_CLASSES, PX, quantize_plainly, spread_answers, write_model  # noqa: E402

from export.bundle import open_bundle, sha256_of, write_samples  # noqa: E402
from export.runtime import Predictor, Settings  # noqa: E402
from export.verifying import AGREEMENT  # noqa: E402
from family.data.images import decode_image  # noqa: E402
from family.data.ontology import from_leaves  # noqa: E402
from family.outputs import read_json, write_json  # noqa: E402

TREE = from_leaves([(str(k), f"All/{name}") for k, name in enumerate("abcde")])

# What Python itself brings, and the two packages. Python imports by name, wherever the name is asked for: also inside of these two.
BARE = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in sys.stdlib_module_names and top not in ("numpy", "onnxruntime"):
            raise ModuleNotFoundError(f"{name} is not installed in this bare environment", name=name)

sys.meta_path.insert(0, Refuse())
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory, write_bundle, photo):
    """A folder with `bundle/`, whose int8 file is quantized, and `pixels.npy` of its stored inputs."""
    folder = tmp_path_factory.mktemp("bare")
    bundle = write_bundle(folder / "bundle", TREE, PX, schemes=("fp32", "int8"))
    images = [photo(2000 + k) for k in range(24)]
    pixels = np.stack([decode_image(image, open_bundle(bundle).preprocessing) for image in images])
    write_model(bundle / "model.fp32.onnx")
    spread_answers(bundle / "model.fp32.onnx", pixels)
    quantize_plainly(bundle / "model.fp32.onnx", bundle / "model.int8.onnx", pixels)
    card = read_json(bundle / "card.json")
    for entry in card["schemes"].values():
        entry["sha256"] = sha256_of(bundle / entry["file"])
    write_json(bundle / "card.json", card)
    write_json(bundle / "labels.json", [{"class": k, "category_id": i, "path": TREE.path_of[i]} for k, i in enumerate(TREE.leaves)])
    answers = {scheme: Predictor(open_bundle(bundle), Settings(scheme, "cpu")).predict(pixels) for scheme in card["schemes"]}
    write_samples(bundle, images, answers)
    np.save(folder / "pixels.npy", pixels)
    return folder


def run_bare(folder: Path, code: str) -> subprocess.CompletedProcess:
    """Run code in a process that sees neither our checkout nor any package but the two."""
    return subprocess.run([sys.executable, "-I", "-c", BARE + code], cwd=folder, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("scheme", ["fp32", "int8"])
def test_the_readmes_lines_give_the_stored_answers(folder, scheme):
    code = snippet().replace("model.int8.onnx", f"model.{scheme}.onnx")
    assert f"bundle/model.{scheme}.onnx" in code
    done = run_bare(folder, code + "\nnp.save('answers.npy', probabilities)\nnp.save('embeddings.npy', embedding)")
    assert done.returncode == 0, done.stderr[-2000:]
    bundle = open_bundle(folder / "bundle")
    answers, stored = np.load(folder / "answers.npy"), bundle.samples(scheme)[1]
    assert answers.shape == stored.shape == (24, N_CLASSES) and answers.dtype == np.float32
    assert (answers.argmax(1) == stored.argmax(1)).mean() >= AGREEMENT
    np.testing.assert_allclose(answers, stored, atol=1e-5)
    assert len(np.load(folder / "embeddings.npy")) == 24
    assert done.stdout.splitlines() == [TREE.path_of[TREE.leaves[best]] for best in answers.argmax(1)]
    assert len(set(done.stdout.split())) > 1, "answers that are all the same would prove little"


@pytest.mark.parametrize("name", ["onnx", "PIL", "pyarrow", "family", "export", "tensorflow"])
def test_the_process_is_bare(folder, name):
    done = run_bare(folder, f"import {name}")
    assert done.returncode == 1 and f"{name} is not installed in this bare environment" in done.stderr


def test_the_two_files_are_not_one(folder):
    bundle = open_bundle(folder / "bundle")
    assert not np.array_equal(bundle.samples("fp32")[1], bundle.samples("int8")[1])
