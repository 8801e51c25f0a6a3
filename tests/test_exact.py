"""A model's answers in float64 are those of the same function, without what float32 rounds."""

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow", reason="TensorFlow is not installed")
from export.exact import full_float32, in_float64, predict_both  # noqa: E402
from export.verify import hostile_images  # noqa: E402
from family.models import build_variant  # noqa: E402


@pytest.mark.parametrize(
    ("variant", "px", "activation"),
    [("b0", 32, ""), ("b0", 32, "hard-swish"), ("v2-b0", 32, ""), ("lite0", 32, ""), ("inception-resnet-v2", 75, "")],
)
def test_answers_in_float64_are_the_models(variant, px, activation):
    model = build_variant(variant, 5, resolution_px=px, activation=activation)
    images = hostile_images(px)[:6]
    exact, embedding = predict_both(in_float64(model), images, 8)
    assert exact.dtype == embedding.dtype == np.float64 and exact.shape == (6, 5)
    assert np.abs(exact.sum(axis=1) - 1).max() < 1e-14, "computed in float64, not widened"
    own = predict_both(model, images, 8)
    assert np.abs(exact - own[0]).max() < 1e-4 and np.abs(embedding - own[1]).max() < 1e-3 * np.abs(embedding).max() and own[1].dtype == np.float32
    assert np.abs(exact - predict_both(in_float64(model), images, 1)[0]).max() < 1e-12


def test_gpus_multiply_in_float32_for_as_long_as_an_export_is_compared():
    is_on = tf.config.experimental.tensor_float_32_execution_enabled
    before = is_on()
    with pytest.raises(ValueError, match="it fails"), full_float32():
        assert not is_on()
        raise ValueError("it fails")
    assert is_on() == before
