"""Progressive learning: what a stage is, that its model is the same one, and that ranks and resumes keep to it."""

import numpy as np
import pytest
from trainings import EXACT, events, family, weights_of

from family.errors import UserError
from family.recipe import make_recipe
from family.training.stages import in_epoch

FIELDS = {"resolution_px": 224, "progressive_from_px": 128, "finetune_epochs": 8, "dropout": 0.3, "mixup": 0.2, "augment": "rand",
          "augment_magnitude": 0.6}  # fmt: skip


def test_resolution_and_strength_grow_and_end_with_those_of_the_recipe():
    recipe = make_recipe(FIELDS)
    stages = [in_epoch(recipe, epoch) for epoch in range(8)]
    assert [stage.resolution_px for stage in stages] == [128, 128, 160, 160, 192, 192, 224, 224]
    assert [stage.dropout for stage in stages[::2]] == pytest.approx([0.1, 0.3 * 5 / 9, 0.3 * 7 / 9, 0.3])
    assert [stage.mixup for stage in stages[::2]] == pytest.approx([0, 0.2 / 3, 0.4 / 3, 0.2])
    assert stages[-1] == recipe and stages[0].augmentation.magnitude == pytest.approx(0.2)


def test_without_it_all_epochs_are_alike_and_few_epochs_end_at_the_full_resolution():
    recipe = make_recipe({**FIELDS, "progressive_from_px": 0})
    assert all(in_epoch(recipe, epoch) is recipe for epoch in range(8))
    assert [in_epoch(make_recipe({**FIELDS, "finetune_epochs": 2}), epoch).resolution_px for epoch in range(2)] == [128, 224]
    with pytest.raises(UserError, match="progressive_from_px = 256"):
        make_recipe({**FIELDS, "progressive_from_px": 256})


def test_a_model_at_another_resolution_shares_its_weights():
    pytest.importorskip("tf_keras")
    from family.models.builders import at_resolution, build_variant, logits_of

    for name in ("lite0", "b0", "v2-b0"):
        model = logits_of(build_variant(name, 5, 64))
        small = at_resolution(model, 32)
        assert at_resolution(model, 64) is model and small.input.shape[1] == 32
        own = logits_of(build_variant(name, 5, 32))
        own.set_weights(model.get_weights())
        image = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype(np.float32)
        np.testing.assert_allclose(small(image, training=False), own(image, training=False), atol=1e-5)
        assert at_resolution(model, 48).input.shape[1] == 48, "a second time, from the same model"


def test_stages_are_the_same_at_two_ranks(tmp_path):
    data, words = tmp_path / "data", [*EXACT, "--set", "finetune_epochs=4", "--set", "optimizer=sgd", "--set", "progressive_stages=2"]
    words += ["--set", "resolution_px=48", "--set", "progressive_from_px=32", "--set", "mixup=0.4", "--set", "augment=trivial"]
    family("data", "synth", data, "--listings", 40, "--categories", 12)
    family("train", data, "--out", tmp_path / "one", *words)
    family("train", data, "--out", tmp_path / "two", *words, "--ranks", 2)
    ones, twos = ([row["loss"] for row in events(tmp_path / run, "epoch")] for run in ("one", "two"))
    assert len(ones) == 4
    np.testing.assert_allclose(ones, twos, rtol=1e-4)
    assert all(np.isfinite(array).all() for array in weights_of(tmp_path / "one").values())
