"""Cheaper activations: what is swapped and what stays, what is refused, and an export that runs in int8 without islands."""

import numpy as np
import pytest

from family.card import SCHEMA, read_card, write_card
from family.errors import UserError
from family.models.sources import check_activation_kept
from family.models.variants import ACTIVATIONS, VARIANTS, check_activation, variant
from family.recipe import make_recipe, read_recipe

tf = pytest.importorskip("tensorflow")

import tf_keras  # noqa: E402
from tf_keras import layers  # noqa: E402
from trainings import family  # noqa: E402

from family.models import build_variant  # noqa: E402
from family.models.activations import LAYERS, HardSwish  # noqa: E402
from family.models.builders import trunk_of  # noqa: E402
from family.models.weights import load_trunk  # noqa: E402
from family.training.runs import load_run, save_run  # noqa: E402

PX = 32
KINDS = {"hard-swish": HardSwish, "relu6": layers.ReLU, "relu": layers.ReLU}


def swishes(model: tf_keras.Model) -> list[str]:
    """Return the layers that are, or end with, a swish."""
    return [layer.name for layer in model.layers if getattr(getattr(layer, "activation", None), "__name__", "") == "swish"]


def in_numpy(activation: str, x: np.ndarray) -> np.ndarray:
    highest = np.inf if activation == "relu" else 6
    return x * np.clip(x + 3, 0, 6) / 6 if activation == "hard-swish" else np.clip(x, 0, highest)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("name", ["b0", "v2-b0"])
def test_the_swish_of_each_convolution_is_swapped_and_that_inside_of_squeeze_and_excite_stays(name, activation):
    own, swapped = build_variant(name, 3, resolution_px=PX), build_variant(name, 3, resolution_px=PX, activation=activation)
    assert [layer.name for layer in swapped.layers] == [layer.name for layer in own.layers]
    assert [w.shape for w in swapped.weights] == [w.shape for w in own.weights]
    gone = set(swishes(own)) - set(swishes(swapped))
    assert gone == {layer.name for layer in own.layers if layer.name.endswith("activation")} and len(gone) > 20
    assert swishes(swapped) and all(layer.endswith("se_reduce") for layer in swishes(swapped))
    x = np.linspace(-8, 8, 101, dtype=np.float32)
    for layer in map(swapped.get_layer, gone):
        assert type(layer) is KINDS[activation]
        np.testing.assert_allclose(layer(x), in_numpy(activation, x), atol=1e-6)
    gates = [layer for layer in swapped.layers if layer.name.endswith("se_expand")]
    assert gates and all(layer.activation.__name__ == "sigmoid" for layer in gates)


def test_a_trunk_loads_as_a_whole_whatever_stands_in_the_place_of_swish(tmp_path):
    build_variant("b0", 3, resolution_px=PX).save_weights(tmp_path / "b0.h5")
    report = load_trunk(build_variant("b0", 3, resolution_px=PX, activation="relu6"), str(tmp_path / "b0.h5"))
    assert report["loaded"] > 300 and not report["missing"] and not report["mismatched"] and report["skipped"] == ["logits"]


@pytest.mark.parametrize("name", [name for name, row in VARIANTS.items() if row.activation != "swish"])
def test_a_variant_without_swish_refuses(name):
    with pytest.raises(UserError, match=f"activation = relu6 stands in the place of swish, and {name} has none"):
        build_variant(name, 3, activation="relu6")
    check_activation(variant(name), "")


def test_the_table_tells_what_each_variant_has():
    for name in ("b0", "v2-b0", "lite0"):
        model = build_variant(name, 3, resolution_px=PX)
        relu6 = [layer.name for layer in model.layers if isinstance(layer, layers.ReLU) and layer.max_value == 6]
        assert {"swish": bool(swishes(model)), "relu6": bool(relu6)}[VARIANTS[name].activation]
        assert bool(swishes(model)) != bool(relu6)


def test_an_unknown_activation_gets_the_nearest_one():
    with pytest.raises(UserError, match="Did you mean 'relu6'"):
        check_activation(variant("b0"), "relu66")
    with pytest.raises(UserError, match="unknown value of activation 'hardswish'. Did you mean 'hard-swish'. Allowed: hard-swish, relu, relu6"):
        make_recipe({"activation": "hardswish"})


def test_the_recipe_that_ships_swaps_and_trains_all_of_it():
    recipe = read_recipe("cheaper")
    assert recipe.activation in ACTIVATIONS and recipe.label
    assert (recipe.head_epochs, recipe.batchnorm) == (0, "train"), "a frozen trunk's features, and its statistics, don't hold"


def write_run(folder, **changes):
    folder.mkdir(exist_ok=True)
    card = {"schema": SCHEMA, "name": "b0", "variant": "b0", "resolution_px": PX, "scope": "general", "classes": ["1", "2", "3"],
            "paths": ["a", "b", "c"], "preprocessing": {"resolution_px": PX, "aspect": "stretch", "filter": "triangle"}}  # fmt: skip
    write_card(folder, {**card, **changes})
    return folder


@pytest.mark.parametrize(
    ("had", "name", "gets", "told"),
    [
        ({}, "b0", "", None),
        ({}, "b0", "relu6", "trained with swish and would get relu6.*--set activation=\\)"),
        ({"activation": "relu6"}, "b0", "relu6", None),
        ({"activation": "relu6"}, "b0", "", "trained with relu6 and would get swish.*--set activation=relu6\\)"),
        ({"activation": "relu6"}, "b0", "relu", "trained with relu6 and would get relu\\."),
        ({}, "lite0", "", "trained with swish and would get relu6.*as they are loaded: train all of it"),
        ({"variant": "lite0"}, "lite0", "", None),
    ],
)
def test_a_trunk_that_is_kept_keeps_its_activation(tmp_path, had, name, gets, told):
    run = write_run(tmp_path / "run", **had)
    if told is None:
        check_activation_kept(variant(name), gets, str(run))
        return
    with pytest.raises(UserError, match=told):
        check_activation_kept(variant(name), gets, str(run))


def test_a_download_has_the_variants_own():
    check_activation_kept(variant("b0"), "", "imagenet")
    with pytest.raises(UserError, match="the trunk of imagenet was trained with swish and would get relu"):
        check_activation_kept(variant("b0"), "relu", "imagenet")


def test_a_run_is_rebuilt_with_what_its_card_tells(tmp_path):
    model = build_variant("b0", 3, resolution_px=PX, activation="hard-swish")
    pixels = np.random.default_rng(0).integers(0, 256, (2, PX, PX, 3)).astype(np.float32)
    run = write_run(tmp_path / "run", activation="hard-swish")
    save_run(run, model, read_card(run))
    features = trunk_of(model)(pixels)
    np.testing.assert_allclose(trunk_of(load_run(run)[0])(pixels), features, rtol=1e-5)
    write_run(run)  # as a version wrote it that knew no other
    older = load_run(run)[0]
    assert len(swishes(older)) == 49 and not np.allclose(trunk_of(older)(pixels), features, rtol=0.01)


def test_a_training_writes_it_into_the_card_and_no_other_recipe_keeps_the_trunk(tmp_path):
    family("data", "synth", tmp_path / "d", "--listings", 48, "--categories", 12)
    words = ["train", tmp_path / "d", "--variant", "b0", "--set", f"resolution_px={PX}", "--set", "max_updates=1", "--set", "batch_size=8"]
    family(*words, "--out", tmp_path / "run", "--recipe", "cheaper", "--weights", "none", "--set", "activation=relu6")
    card = read_card(tmp_path / "run")
    assert card["activation"] == "relu6"
    assert [layer.name for layer in load_run(tmp_path / "run")[0].layers if isinstance(layer, layers.ReLU)][0] == "stem_activation"
    said = family(*words, "--out", tmp_path / "other", "--recipe", "transfer", "--weights", tmp_path / "run", code=2).stderr
    assert "was trained with relu6 and would get swish" in said and "--recipe cheaper" in said
    said = family("train", tmp_path / "d", "--variant", "lite0", "--out", tmp_path / "lite", "--recipe", "cheaper", "--weights", "none", code=2).stderr
    assert "lite0 has none (it has relu6)" in said


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_an_export_runs_in_int8_without_an_operator_in_float_between(activation, tmp_path):
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    from small_models import quantize_plainly

    from export.onnx import convert
    from export.proof import prove, why_not_int8
    from export.runtime import run_unfused
    from export.verify import hostile_images

    tf_keras.utils.set_random_seed(0)
    image = layers.Input((PX, PX, 3), name="image")
    x = layers.Rescaling(1 / 128, -1.0)(image)
    convolutions = layers.Conv2D(16, 3, strides=2, padding="same"), layers.DepthwiseConv2D(3, use_bias=False), layers.Conv2D(24, 1, use_bias=False)
    for kind in convolutions:
        x = LAYERS[activation]()(layers.BatchNormalization()(kind(x)))
    embedding = layers.GlobalAveragePooling2D(name="embedding")(x)
    model = tf_keras.Model(image, layers.Softmax(name="probabilities")(layers.Dense(5)(embedding)))
    for layer in model.layers:  # an untrained one would be the identity
        if isinstance(layer, layers.BatchNormalization):
            layer.set_weights([np.abs(np.random.default_rng(k).normal(1, 0.5, w.shape)) for k, w in enumerate(layer.get_weights())])
    convert(model, tmp_path / "fp32.onnx")
    images = np.concatenate([hostile_images(PX), np.random.default_rng(0).integers(0, 256, (16, PX, PX, 3), np.uint8)])
    np.testing.assert_allclose(run_unfused(tmp_path / "fp32.onnx", images)[0], model.predict(images.astype(np.float32), verbose=0), atol=1e-5)
    operators = [node.op_type for node in onnx.load(tmp_path / "fp32.onnx").graph.node]
    assert (operators.count("Conv"), operators.count("Mul")) == (3, 3 if activation == "hard-swish" else 0), "hard-swish has one product left"
    quantize_plainly(tmp_path / "fp32.onnx", tmp_path / "int8.onnx", images)
    proof = prove(tmp_path / "int8.onnx")
    assert why_not_int8(proof, 0) == "" and proof["int8_convolutions"] == 3
    in_int8 = [name for name in proof["operators"] if name.startswith("QLinear")]
    assert {"Clip", "Relu", "HardSigmoid", "Mul", "Add"}.isdisjoint(proof["operators"]) and in_int8
    assert proof["operators"].get("QLinearMul", 0) == (3 if activation == "hard-swish" else 0)
