"""The PyTorch side of `bench train --peers`: the same model, rows and crops as ours, and that it learns."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from trainings import family

REASON = "the extra `peers` is not installed (pip install '.[peers]')"
torch = pytest.importorskip("torch", reason=REASON)
pytest.importorskip("efficientnet_pytorch", reason=REASON)

from benchmarks.training.drawn import timed_recipe  # noqa: E402
from benchmarks.training.pytorch import PyTorch, build_model, make_optimizer  # noqa: E402
from family.cli import main  # noqa: E402
from family.data.crops import read_cropped, row_draws  # noqa: E402
from family.data.dataset import open_dataset  # noqa: E402
from family.data.images import Preprocessing  # noqa: E402
from family.data.order import epoch_order  # noqa: E402

VARIANTS = json.loads((Path(__file__).parents[1] / "golden" / "variants.json").read_text())
RECIPE = timed_recipe(32, 4)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    out = tmp_path_factory.mktemp("made-up") / "dataset"
    family("data", "synth", out, "--listings", 30, "--categories", 12)
    return out


@pytest.fixture(scope="module")
def side(dataset):
    return PyTorch("b0", open_dataset(dataset).rows("train"), RECIPE)


def test_the_model_is_as_large_as_ours():
    model = build_model("b0", 1000, RECIPE)
    assert sum(parameter.numel() for parameter in model.parameters()) == VARIANTS["b0"]["computed"]["trainable"]


def test_decay_pulls_weights_alone():
    model = build_model("b0", 10, RECIPE)
    weights, others = make_optimizer(model, RECIPE).param_groups
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert weights["weight_decay"] == RECIPE.weight_decay and others["weight_decay"] == 0
    assert len(weights["params"]) + len(others["params"]) == len(names)
    assert not [names[id(p)] for p in weights["params"] if names[id(p)].endswith("bias") or "_bn" in names[id(p)]]
    assert weights["lr"] == pytest.approx(RECIPE.finetune_rate * 4 / 256)


def test_its_rows_and_crops_are_ours(side, dataset):
    rows = open_dataset(dataset).rows("train")
    order = epoch_order(len(rows), RECIPE.seed, 0)[:8]
    expected = [read_cropped(rows, row, Preprocessing(32), RECIPE, row_draws(RECIPE.seed, 0, row)) for row in order.tolist()]
    batches = list(side.batches(2))
    np.testing.assert_array_equal(np.concatenate([images.numpy() for images, _ in batches]), np.stack(expected))
    np.testing.assert_array_equal(np.concatenate([labels.numpy() for _, labels in batches]), rows.labels[order])


def test_it_chose_the_fastest_setting_and_learns_with_batchnorm_in_training_mode(side):
    tried, conditions = side.conditions["tried_images_per_s"], side.conditions
    assert len(tried) == 4 and max(tried, key=tried.get) == f"{conditions['memory_format']}, {conditions['swish']}"
    assert conditions["threads"] == len(os.sched_getaffinity(0)) == torch.get_num_threads()
    (batch,) = side.batches(1)
    statistics = side._model._bn1.running_mean.clone()
    losses = [side.step(*batch)[0] for _ in range(12)]
    assert min(losses[-3:]) < losses[0]
    assert not torch.equal(statistics, side._model._bn1.running_mean)


def test_it_leaves_no_process_behind_a_turn(side):
    assert side.time_steps(1) > 0
    assert not Path(f"/proc/self/task/{os.getpid()}/children").read_text().split(), "a stopped side must hold still"


def test_variants_that_it_lacks_are_refused(capsys):
    assert main(["bench", "train", "--peers", "--variant", "v2-b0"]) == 2
    assert "has no v2-b0; it has b0, " in capsys.readouterr().err


def test_bench_train_times_it_beside_ours(dataset):
    words = ["--peers", "--resolution", "32", "--batch-size", "4", "--steps", "2", "--rounds", "2", "--head-epochs", "0", "--json"]
    command = [sys.executable, "-m", "family.cli", "bench", "train", *words, "--dataset", str(dataset)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1"})
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["head_phase"] is None and found["peers"]["pytorch"]["ratio"] > 0
    assert all(row["pytorch_images_per_s"] > 0 for row in found["rounds"])
    assert found["conditions"]["pytorch"]["versions"].keys() == {"torch", "efficientnet_pytorch"}


def test_a_variant_answers_with_probabilities_in_one_thread():
    from benchmarks.peers.pytorch import PyTorch as Inference

    side = Inference({"variant": "b0", "resolution_px": 64, "classes": list("abcde")}, 1)
    images = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), np.uint8)
    found = np.concatenate([side.predict(image[None]) for image in images])
    assert found.shape == (3, 5) and found.dtype == np.float32 and (found > 0).all()
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(side.predict(images[:1].astype(side.dtype)), found[:1])
    assert torch.get_num_threads() == 1
