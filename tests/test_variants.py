"""Every variant: its figures held against the published ones, its preprocessing, its sizes, and real weights by layer name.

REFRESH_GOLDEN=1 writes the computed half of the golden table anew; read the difference before you keep it. The published half is
written by hand: a figure as printed, where it stands, what it counts, and where the graph has another (`off` is the share, `why`).
"""

import json
import math
import os
import re
from pathlib import Path

import h5py
import numpy as np
import pytest

from family.errors import UserError
from family.models.sources import DOWNLOADS, download_file
from family.models.variants import VARIANTS, resolution_of, variant

tf = pytest.importorskip("tensorflow")

import tf_keras  # noqa: E402
from tf_keras import layers  # noqa: E402

from family.models import build_variant  # noqa: E402
from family.models import weights as weights_module  # noqa: E402
from family.models.builders import library_trunk, trunk_of  # noqa: E402
from family.models.counting import count, multiply_adds  # noqa: E402
from family.models.draws import RowDropout  # noqa: E402
from family.models.weights import load_trunk, refuse_parts  # noqa: E402

GOLDEN = Path(__file__).parent / "golden" / "variants.json"
WEIGHTS = Path(__file__).parent.parent.parent / "shared" / "weights"
B0_FILE = WEIGHTS / "efficientnetb0_notop.h5"
UNITS = {"": 1, "M": 1e6, "B": 1e9}


def golden() -> dict:
    return json.loads(GOLDEN.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_is_the_golden_one(name, monkeypatch):
    # Random numbers would take a quarter of the time of the large ones; every kernel here is drawn by this class.
    monkeypatch.setattr(tf_keras.initializers.VarianceScaling, "__call__", lambda self, shape, dtype=None, **_: tf.zeros(shape, dtype))
    tf_keras.backend.clear_session()
    model = build_variant(name)
    assert model.output_shape == (None, 1000)
    computed = {**count(model), "resolution_px": model.input_shape[1]}
    if os.environ.get("REFRESH_GOLDEN") == "1":
        table = golden()
        table[name] = {"computed": computed, "published": table.get(name, {}).get("published", [])}
        GOLDEN.write_text(json.dumps({key: table[key] for key in VARIANTS if key in table}, indent=1) + "\n", encoding="utf-8")
    assert golden()[name]["computed"] == computed
    row = VARIANTS[name]
    listed = {"parameters": row.n_parameters, "multiply_adds": row.multiply_adds, "n_features": row.n_features,
              "resolution_px": row.resolution_px}  # fmt: skip
    assert listed == {key: computed[key] for key in listed}


def printed_value(printed: str) -> tuple[float, float]:
    """Return a figure as printed, such as `0.39 B`, and the half of its last digit."""
    digits, unit = re.fullmatch(r"([\d.,]+) ?([MB]?)", printed).groups()
    digits = digits.replace(",", "")
    return float(digits) * UNITS[unit], 0.5 * UNITS[unit] / 10 ** len(digits.partition(".")[2])


def test_the_golden_table_has_every_variant_with_published_parameters_and_multiply_adds():
    assert list(golden()) == list(VARIANTS)
    for name, entry in golden().items():
        figures = {claim["figure"] for claim in entry["published"]}
        assert figures & {"parameters", "trainable"} and "multiply_adds" in figures, name


@pytest.mark.parametrize("name", VARIANTS)
def test_the_computed_figures_are_the_published_ones(name):
    entry = golden()[name]
    for claim in entry["published"]:
        value, rounding = printed_value(claim["printed"])
        difference = abs(entry["computed"][claim["figure"]] - value)
        assert claim["source"] and claim["counted"]
        if difference > rounding:
            assert claim["why"] and claim["off"] <= 0.07, claim
            assert 0.9 * claim["off"] <= difference / value <= claim["off"], (claim, difference / value)
        else:
            assert "why" not in claim and "off" not in claim, claim


@pytest.mark.parametrize("name", ["b0", "lite0", "inception-resnet-v2"])
def test_multiply_adds_are_those_of_tensorflows_profiler(name):
    """It counts two operations for a multiply-add; at an odd size, with and without depthwise convolutions."""
    tf_keras.backend.clear_session()
    model = build_variant(name, 7, resolution_px=81)
    graph = tf.function(model).get_concrete_function(tf.TensorSpec((1, 81, 81, 3))).graph
    options = tf.compat.v1.profiler.ProfileOptionBuilder.float_operation()
    options |= {"account_type_regexes": ["Conv2D", "DepthwiseConv2dNative", "MatMul"], "output": "none"}
    assert tf.compat.v1.profiler.profile(graph, options=options).total_float_ops == 2 * count(model)["multiply_adds"]


@pytest.mark.parametrize(("name", "of_it"), [("lite1", 1.0), ("lite0", 0.9966)])
def test_lites_readme_counts_operations_between_arrays_too(name, of_it):
    tf_keras.backend.clear_session()
    model = build_variant(name)

    def outputs_of(kind) -> int:
        return sum(math.prod(layer.output.shape[1:]) for layer in model.layers if isinstance(layer, kind))

    operations = count(model)["multiply_adds"] + 3 * outputs_of(layers.BatchNormalization) + outputs_of(layers.Add)
    (printed,) = [claim["printed"] for claim in golden()[name]["published"] if claim["figure"] == "multiply_adds"]
    value, rounding = printed_value(printed)
    assert abs(operations - of_it * value) <= rounding


def test_a_grouped_convolution_is_counted_by_hand_and_an_unknown_layer_is_refused():
    image = layers.Input((9, 7, 6))
    grouped = layers.Conv2D(4, 3, strides=2, padding="same", groups=2)
    depthwise = layers.DepthwiseConv2D(3, depth_multiplier=2)
    turned = layers.Conv2DTranspose(4, 3)
    turned(depthwise(image)), grouped(image)
    assert multiply_adds(grouped) == 5 * 4 * 4 * (3 * 3 * 3)  # places, filters, kernel over the 3 channels of a group
    assert multiply_adds(depthwise) == 7 * 5 * 12 * (3 * 3)
    with pytest.raises(ValueError, match="Conv2DTranspose"):
        multiply_adds(turned)


def test_pixels_are_scaled_as_the_librarys_own_preprocessing_does():
    import efficientnet.tfkeras as efn
    from tf_keras.src.applications import efficientnet_v2, inception_resnet_v2

    pixels = np.linspace(0, 255, 2 * 32 * 32 * 3, dtype=np.float32).reshape(2, 32, 32, 3)

    def of_the_library(name: str) -> np.ndarray:
        if name.startswith("v2-"):  # one block is enough: the size's name decides the layers before the stem
            blocks = efficientnet_v2.DEFAULT_BLOCKS_ARGS["efficientnetv2-b0"][:1]
            tiny = efficientnet_v2.EfficientNetV2(1, 1, 32, blocks_args=blocks, model_name=f"efficientnet{name}", include_top=False,
                                                  weights=None, input_shape=(32, 32, 3))  # fmt: skip
            return tf_keras.Model(tiny.input, tiny.get_layer("stem_conv").input)(pixels).numpy()
        if name.startswith("lite"):  # MEAN_RGB and STDDEV_RGB of efficientnet_lite_builder.py
            return (pixels - 127) / 128
        return inception_resnet_v2.preprocess_input(pixels.copy()) if name.startswith("i") else efn.preprocess_input(pixels.copy())

    for name, row in VARIANTS.items():
        np.testing.assert_allclose(pixels * np.array(row.scale) + np.array(row.offset), of_the_library(name), atol=2e-6, err_msg=name)


@pytest.mark.parametrize(("name", "px"), [("b1", 33), ("v2-b1", 65), ("lite2", 33)])  # Inception-ResNet-V2 answers at 75 px below
def test_a_variant_answers_at_an_odd_size(name, px):
    tf_keras.backend.clear_session()
    model = build_variant(name, 3, resolution_px=px)
    pixels = np.random.default_rng(px).integers(0, 256, (2, px, px, 3)).astype(np.float32)
    answers = model(pixels).numpy()
    assert answers.shape == (2, 3) and np.isfinite(answers).all() and (answers > 0).all()
    np.testing.assert_allclose(answers.sum(axis=1), 1, atol=1e-5)


def test_too_small_a_resolution_is_refused_with_the_smallest():
    with pytest.raises(UserError, match="at least 75 px; got 33"):
        build_variant("inception-resnet-v2", 3, resolution_px=33)
    assert resolution_of(variant("inception-resnet-v2"), 75) == 75
    assert resolution_of(variant("b3"), None) == resolution_of(variant("b3"), 0) == 300


def test_stochastic_depth_rises_linearly_over_all_blocks_of_a_deeper_variant():
    model = build_variant("b1", 3, resolution_px=32)
    rates = [layer.rate for layer in model.layers if isinstance(layer, RowDropout) and layer.per_image]
    repeats = (2, 3, 3, 4, 4, 5, 2)  # of B0's seven stages, times 1.1 and rounded up: 23 blocks, the first of each has no shortcut
    starts = np.cumsum((0, *repeats))
    with_shortcut = [k for stage, n in enumerate(repeats) for k in range(starts[stage] + 1, starts[stage] + n)]
    np.testing.assert_allclose(rates, [0.2 * k / 23 for k in with_shortcut])
    doubled = build_variant("lite0", 3, resolution_px=32, drop_connect=0.4)
    assert doubled.get_layer("block6d_drop").rate == pytest.approx(0.4 * 14 / 16)


def test_b0s_file_gives_lite0_its_convolutions():
    if not B0_FILE.is_file():
        pytest.skip(f"needs {B0_FILE.name} in ../shared/weights")
    model = build_variant("lite0", 5, resolution_px=32)
    head = model.get_layer("logits").get_weights()
    report = load_trunk(model, str(B0_FILE))
    assert not report["missing"] and not report["mismatched"]
    convolutions = [layer for layer in model.layers if isinstance(layer, layers.Conv2D | layers.DepthwiseConv2D)]
    assert len(convolutions) == 49  # stem, top, 16 x (depthwise, project), 15 x expand
    with h5py.File(B0_FILE) as file:
        for layer in convolutions:
            (stored,) = [file[layer.name][weight][()] for weight in file[layer.name].attrs["weight_names"]]
            np.testing.assert_array_equal(layer.get_weights()[0], stored)
        squeezes = {name for name in file.attrs["layer_names"] if "_se_" in name and len(file[name].attrs["weight_names"])}
    assert set(report["skipped"]) == squeezes | {"normalization"}
    assert report["loaded"] == 49 + 4 * 49  # and a BatchNorm after each
    np.testing.assert_array_equal(model.get_layer("logits").get_weights()[0], head[0])
    with pytest.raises(UserError, match="squeeze-and-excite.*batchnorm=train"):
        refuse_parts(report, "lite0")


def test_what_is_missing_mismatched_and_skipped_is_told(tmp_path):
    build_variant("lite0", 3, resolution_px=32).save_weights(tmp_path / "lite0.h5")
    report = load_trunk(build_variant("lite2", 3, resolution_px=32), str(tmp_path / "lite0.h5"))  # wider and deeper in places
    assert "block2c_dwconv" in report["missing"] and "block2b_dwconv" not in report["missing"]  # 3 blocks in its second stage, and 2
    assert "block4a_project_conv" in report["mismatched"]  # 88 filters, and 80
    assert "block2a_project_conv" not in report["mismatched"]  # 24 filters in both
    assert report["loaded"] > 0 and report["skipped"] == ["logits"]
    with pytest.raises(UserError, match="fits lite2 only in part: .* layers would stay random"):
        refuse_parts(report, "lite2")
    refuse_parts(load_trunk(build_variant("lite0", 3, resolution_px=32), str(tmp_path / "lite0.h5")), "lite0")


def test_unnamed_layers_load_whatever_number_the_library_gave_them(monkeypatch):
    tf_keras.backend.clear_session()
    model = build_variant("inception-resnet-v2", 3, resolution_px=75)
    made = []

    def as_downloaded(row, px, weights):  # built second, so that Keras counts its layers on
        made.append(library_trunk(row, px))
        return made[0]

    monkeypatch.setattr(weights_module, "library_trunk", as_downloaded)
    report = load_trunk(model, "imagenet")
    assert not report["missing"] and not report["mismatched"] and not report["skipped"]
    pixels = np.random.default_rng(0).integers(0, 256, (1, 75, 75, 3)).astype(np.float32)
    theirs = made[0](pixels / 127.5 - 1).numpy().mean(axis=(1, 2))
    np.testing.assert_allclose(trunk_of(model)(pixels).numpy(), theirs, rtol=1e-4, atol=1e-5)


def test_weights_that_nobody_publishes_are_refused_by_name():
    assert download_file(variant("v2-s"), "imagenet") == "efficientnetv2-s_notop.h5"
    assert all(download_file(VARIANTS[f"b{k}"], source) for k in range(8) for source in DOWNLOADS)
    with pytest.raises(UserError, match="v2-s has no published noisy-student weights; there are: imagenet"):
        download_file(variant("v2-s"), "noisy-student")
    with pytest.raises(UserError, match="lite3 has no published weights"):
        load_trunk(build_variant("lite3", 3, resolution_px=32), "imagenet")


def test_listing_the_variants_shows_their_sizes_and_never_loads_tensorflow(run_python):
    code = "import sys; from family.cli import main; main(['list', 'variants']); print('tensorflow' in sys.modules)"
    done = run_python("-c", code)
    *lines, loaded = done.stdout.splitlines()
    assert loaded == "False", done.stderr
    assert [line.split()[0] for line in lines] == ["variant", *VARIANTS]
    assert "b7 600 px 66.66 M" in re.sub(" +", " ", "\n".join(lines))
