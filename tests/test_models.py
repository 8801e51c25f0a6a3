"""The variants: published sizes, layer names that pretrained files fit, and draws that don't depend on ranks."""

from pathlib import Path

import numpy as np
import pytest

from family.errors import UserError
from family.models.variants import variant

tf = pytest.importorskip("tensorflow")

import tf_keras  # noqa: E402

from family.models import build_variant  # noqa: E402
from family.models.builders import soften_residuals  # noqa: E402
from family.models.draws import Draws, RowDropout, drawing  # noqa: E402
from family.models.weights import load_trunk  # noqa: E402

WEIGHTS = Path(__file__).parent.parent.parent / "shared" / "weights"
FILES = {"b0": "efficientnetb0_notop.h5", "v2-b0": "efficientnetv2-b0_notop.h5"}


def test_layer_names_do_not_depend_on_what_was_built_before():
    build_variant("inception-resnet-v2", 3, resolution_px=80)
    names = [layer.name for layer in build_variant("inception-resnet-v2", 3, resolution_px=80).layers]
    assert "conv2d" in names


@pytest.mark.parametrize("name", FILES)
def test_real_weights_fit_and_give_the_librarys_features(name):
    if not (WEIGHTS / FILES[name]).is_file():
        pytest.skip(f"needs {FILES[name]} in ../shared/weights")
    import efficientnet.tfkeras as efn

    model = build_variant(name, 5, resolution_px=96)
    report = load_trunk(model, str(WEIGHTS / FILES[name]))
    assert not report["missing"] and not report["mismatched"]
    # All that the file has: in B0's, Keras' own Normalization is told apart from our preprocessing.
    assert (report["loaded"], report["skipped"]) == {"b0": (309, ["normalization"]), "v2-b0": (359, [])}[name]
    pixels = np.random.default_rng(0).integers(0, 256, (2, 96, 96, 3)).astype(np.float32)
    ours = tf_keras.Model(model.input, model.get_layer("embedding").output).predict(pixels, verbose=0)
    if name == "b0":
        library = efn.EfficientNetB0(weights=None, include_top=False, input_shape=(96, 96, 3), pooling="avg")
        library.load_weights(WEIGHTS / FILES[name], by_name=True)
        pixels = (pixels / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    else:  # its preprocessing is part of the library's model
        library = tf_keras.applications.EfficientNetV2B0(weights=None, include_top=False, input_shape=(96, 96, 3), pooling="avg")
        library.load_weights(WEIGHTS / FILES[name])
    np.testing.assert_allclose(ours, library.predict(pixels, verbose=0), atol=2e-4)


def test_weights_of_another_architecture_are_refused(tmp_path):
    build_variant("lite0", 3, resolution_px=32).save_weights(tmp_path / "lite.h5")
    with pytest.raises(UserError, match="no layer fits"):
        load_trunk(build_variant("inception-resnet-v2", 3, resolution_px=80), str(tmp_path / "lite.h5"))


def test_a_missing_file_and_a_file_that_is_no_weights_are_named(tmp_path):
    model = build_variant("lite0", 3, resolution_px=32)
    with pytest.raises(UserError, match="no weights at"):
        load_trunk(model, str(tmp_path / "none.h5"))
    (tmp_path / "text.h5").write_text("no weights")
    with pytest.raises(UserError, match="HDF5"):
        load_trunk(model, str(tmp_path / "text.h5"))


def test_an_unknown_variant_is_answered_with_the_nearest():
    with pytest.raises(UserError, match="Did you mean 'v2-b0'"):
        variant("v2b0")


@pytest.mark.parametrize("per_image", [False, True])
def test_ranks_draw_what_one_process_draws(per_image):
    layer = RowDropout(0.5, per_image=per_image, index=3)
    ones = tf.ones((6, 4, 4, 2))

    def masks(start: int, n: int, step: int = 7):
        with drawing(Draws(tf.constant(1), tf.constant(step), tf.constant(start), tf.constant(6))):
            return layer(ones[:n], training=True).numpy()

    whole = masks(0, 6)
    np.testing.assert_array_equal(whole, np.concatenate([masks(0, 4), masks(4, 2)]))
    assert not np.array_equal(whole, masks(0, 6, step=8))
    assert set(np.unique(whole)) == {0.0, 2.0}
    np.testing.assert_array_equal(layer(ones, training=False), ones)


@pytest.mark.parametrize("name", ["b0", "v2-b0", "lite0"])
def test_softened_residual_branches_add_nothing_at_zero(name):
    model = build_variant(name, 5, resolution_px=64)
    sums = [layer for layer in model.layers if isinstance(layer, tf_keras.layers.Add)]
    assert soften_residuals(model, 0.0) == len(sums) > 5
    ends = tf_keras.Model(model.input, [[*layer.input, layer.output] for layer in sums])
    for taken in ends(np.random.default_rng(0).uniform(0, 255, (1, 64, 64, 3)).astype(np.float32)):
        *inputs, output = (tensor.numpy() for tensor in taken)
        assert sum(not tensor.any() for tensor in inputs) == 1 and any((tensor == output).all() for tensor in inputs)
