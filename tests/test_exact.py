"""A model's answers in float64 are those of the same function, without what float32 rounds."""

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="TensorFlow is not installed")
from export.exact import predict_exactly  # noqa: E402
from export.verify import hostile_images  # noqa: E402
from family.models import build_variant  # noqa: E402


@pytest.mark.parametrize(
    ("variant", "px", "activation"),
    [("b0", 32, ""), ("b0", 32, "hard-swish"), ("v2-b0", 32, ""), ("lite0", 32, ""), ("inception-resnet-v2", 75, "")],
)
def test_answers_in_float64_are_the_models(variant, px, activation):
    model = build_variant(variant, 5, resolution_px=px, activation=activation)
    images = hostile_images(px)[:6]
    exact = predict_exactly(model, images)
    assert exact.dtype == np.float64 and exact.shape == (6, 5)
    assert np.abs(exact.sum(axis=1) - 1).max() < 1e-14, "computed in float64, not widened"
    assert np.abs(exact - model.predict(images.astype(np.float32), verbose=0)).max() < 1e-4
    assert np.abs(exact - predict_exactly(model, images, batch=1)).max() < 1e-12
