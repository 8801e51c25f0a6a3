"""Recipes: every field is known, of its kind and inside its range, or the error says what is allowed."""

import math
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from family.errors import UserError
from family.recipe import Recipe, make_recipe, read_recipe, recipes, to_toml

IN_RANGE = {
    "label": st.sampled_from(["", "distilled", "v1.2_b"]),
    "resolution_px": st.sampled_from([0, 32, 224, 1024]),
    "batch_size": st.integers(1, 4096),
    "finetune_rate": st.floats(1e-9, 50),
    "weight_decay": st.floats(0, 1),
    "warmup_epochs": st.floats(0, 5),
    "crop_min_area": st.floats(0.01, 1),
    "aspect": st.sampled_from(["stretch", "crop", "pad"]),
    "flip": st.booleans(),
    "mixup": st.sampled_from([0.0, 0.2]),
    "augment": st.sampled_from(["none", "trivial", "rand"]),
    "seed": st.integers(0, 2**31 - 1),
}


@pytest.mark.parametrize("name", sorted(recipes()))
def test_every_recipe_that_ships_is_read(name):
    assert isinstance(read_recipe(name), Recipe)


def test_the_recipes_of_the_contract_ship():
    assert {"quick", "transfer", "scratch", "distill"} <= set(recipes())
    assert read_recipe("transfer").head_epochs and read_recipe("transfer").finetune_epochs
    assert read_recipe("scratch").head_epochs == 0 and read_recipe("scratch").residual_gamma == 0, "branches begin at zero"


@given(st.fixed_dictionaries({}, optional=IN_RANGE))
def test_what_is_written_is_read(values):
    recipe = make_recipe(values)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "r.toml"
        path.write_text(to_toml(recipe), encoding="utf-8")
        assert read_recipe(str(path)) == recipe


def test_settings_are_parsed_as_toml_and_win_over_the_file():
    told = ["batch_size=64", " finetune_rate = 1e-3", "deterministic=true", 'label="a.b"', "aspect=crop", "warmup_epochs=1"]
    wanted = {"batch_size": 64, "finetune_rate": 1e-3, "deterministic": True, "label": "a.b", "aspect": "crop", "warmup_epochs": 1.0}
    found = read_recipe("quick", told)
    assert found == replace(read_recipe("quick"), **wanted)
    assert isinstance(found.warmup_epochs, float)
    assert read_recipe("quick", ["seed=1", "seed=2"]).seed == 2
    assert read_recipe("quick", ["label=2024"]).label == "2024"


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("batchsize=3", "unknown recipe field 'batchsize'. Did you mean 'batch_size'"),
        ("batch_size", "key=value"),
        ("=3", "unknown recipe field ''"),
        ("batch_size=many", "takes a int; got 'many'"),
        ("batch_size=1.5", "takes a int; got 1.5"),
        ("batch_size=true", "takes a int; got True"),
        ("flip=1", "takes a bool; got 1"),
        ("finetune_rate=fast", "takes a float; got 'fast'"),
        ("batch_size=0", "batch_size = 0 is out of range"),
        ("seed=-1", "seed = -1 is out of range"),
        ("seed=99999999999999999999", "seed = 99999999999999999999 is out of range"),
        ("finetune_rate=0", "out of range"),
        ("finetune_rate=nan", "out of range"),
        ("warmup_epochs=nan", "out of range"),
        ("weight_decay=inf", "out of range"),
        ("plateau_min_gain=nan", "out of range"),
        ("checkpoint_interval_s=-1", "out of range"),
        ("dropout=1.0", "out of range"),
        ("layer_decay=0", "layer_decay = 0.0 is out of range"),
        ("layer_decay=1.1", "out of range"),
        ("unfreeze_epochs=-1", "out of range"),
        ("step_epochs=0", "out of range"),
        ("step_factor=0", "out of range"),
        ("plateau_rate_epochs=0", "out of range"),
        ("crop_min_area=0.0", "out of range"),
        ("resolution_px=31", "out of range"),
        ("optimizer=adam", "Did you mean 'adamw'"),
        ("aspect=square", "crop, pad, stretch"),
        ("label=a/b", "enters file names"),
        ("finetune_epochs=0", "nothing to train"),
    ],
)
def test_wrong_settings_are_told(setting, told):
    with pytest.raises(UserError) as error:
        read_recipe("quick", [setting])
    assert told in str(error.value)


def test_an_unknown_recipe_or_file_is_told(tmp_path):
    with pytest.raises(UserError, match="Did you mean 'transfer'"):
        read_recipe("transfr")
    with pytest.raises(UserError, match="none.toml"):
        read_recipe(str(tmp_path / "none.toml"))
    (tmp_path / "broken.toml").write_text("batch_size = = 3")
    with pytest.raises(UserError, match="broken.toml"):
        read_recipe(str(tmp_path / "broken.toml"))


def test_defaults_are_in_range():
    assert make_recipe({}) == Recipe()
    assert all(math.isfinite(v) for v in Recipe().__dict__.values() if isinstance(v, float))
