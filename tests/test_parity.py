"""An fp32 file whose weights are not the run's, by ever so little, is not exported."""

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")
from small_models import PX, spread_answers, write_model  # noqa: E402

from export.exporting import _check_parity  # noqa: E402
from export.runtime import run_unfused  # noqa: E402
from export.verify import hostile_images  # noqa: E402
from family.errors import Failure  # noqa: E402

IMAGES = np.concatenate([np.random.default_rng(0).integers(0, 256, (8, PX, PX, 3), np.uint8), hostile_images(PX)])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The file as it should be, and its answers, in the place of the run's."""
    path = tmp_path_factory.mktemp("parity") / "fp32.onnx"
    write_model(path)
    spread_answers(path, IMAGES)
    return path, run_unfused(path, IMAGES)


def scaled(weights, by: float):
    return (weights * np.float32(by)).astype(np.float32)


def with_nan(weights):
    weights = weights.copy()
    weights.flat[0] = np.nan
    return weights


@pytest.mark.parametrize(
    ("name", "disturb"),
    [
        ("w0", lambda weights: scaled(weights, 1.001)),
        ("b2", lambda bias: bias + np.float32(0.5)),
        ("w", lambda weights: weights[:, ::-1].copy()),
        ("w", lambda weights: scaled(weights, 1.0005)),
        ("w1", with_nan),
        ("w1", np.zeros_like),
    ],
)
def test_disturbed_weights_are_refused(run, tmp_path, name, disturb):
    path, source = run
    model = onnx.load(path)
    (tensor,) = [tensor for tensor in model.graph.initializer if tensor.name == name]
    tensor.CopyFrom(onnx.numpy_helper.from_array(disturb(onnx.numpy_helper.to_array(tensor)), name))
    onnx.save(model, tmp_path / "fp32.onnx")
    with pytest.raises(Failure, match="fp32 does not give the run's answers"):
        _check_parity(source, tmp_path / "fp32.onnx", source, IMAGES)


def test_a_file_that_is_right_as_written_and_wrong_as_served_is_refused(run):
    path, source = run
    with pytest.raises(Failure, match="as served 1.00e-03"):
        _check_parity(source, path, source + np.float32(1e-3), IMAGES)


def test_the_runs_own_weights_pass(run):
    path, source = run
    found = _check_parity(source, path, source, IMAGES)
    assert found["agreement"] == 1 and found["max_dp"] == 0 and found["served"]["n"] == len(IMAGES)
