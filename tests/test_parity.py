"""An fp32 file whose weights are not the run's, by ever so little, is not exported."""

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")
from small_models import PX, spread_answers, write_model  # noqa: E402

from export import exporting  # noqa: E402
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


def check(source, path, served, n_photos=8, exactly=None):
    return exporting._check_parity(source, path, served, IMAGES, n_photos, exactly)


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
        check(source, tmp_path / "fp32.onnx", source, exactly=lambda images: source[8:].astype(float))


def test_a_file_that_is_right_as_written_and_wrong_as_served_is_refused(run):
    path, source = run
    with pytest.raises(Failure, match="as served 1.00e-03"):
        check(source, path, source + np.float32(1e-3))


def test_the_runs_own_weights_pass(run):
    path, source = run
    found = check(source, path, source)
    assert found["agreement"] == 1 and found["max_dp"] == 0 and found["served"]["n"] == len(IMAGES)
    assert "rounding" not in found, "nobody asked for float64"


@pytest.mark.parametrize(
    ("own", "at", "n_photos", "passes"),
    [
        (1.2e-5, 8, 8, True),  # the run's float32 is off by as much as the two differ
        (1.2e-5, 7, 8, False),  # of a photo
        (0.0, 8, 8, False),  # the run is sure, so that the file is off
        (2e-4, 8, 8, False),  # further than any float32 may be off
    ],
)
def test_what_the_run_rounds_itself_is_no_fault_of_the_file_on_images_that_no_photo_is(run, own, at, n_photos, passes):
    path, written = run
    source, exact = written.copy(), written.astype(float)
    source[at, 0] += np.float32(own or 1.2e-5)
    exact[at] = source[at] if not own else exact[at]
    if not passes:
        with pytest.raises(Failure, match="fp32 does not give the run's answers"):
            check(source, path, written, n_photos, lambda images: exact[n_photos:])
        return
    one = check(source, path, written, n_photos, lambda images: exact[n_photos:])["rounding"]
    assert one == {"n": len(IMAGES) - 8, "source": pytest.approx(own, rel=1e-2), "exported": 0, "allowed": pytest.approx(2 * own, rel=1e-2)}


def test_a_file_twice_as_far_off_as_the_run_is_refused_and_told(run):
    path, written = run
    source, exact = written.copy(), written.astype(float)
    exact[8, 0] -= 3e-5
    source[8, 0] -= np.float32(1.8e-5)  # 1.2e-5 from what is exact; the file's lies 3e-5 from it
    with pytest.raises(Failure, match="in float64 the run's own lie 1.2.e-05 at most, the file's 3.00e-05"):
        check(source, path, written, 8, lambda images: exact[8:])


def test_what_can_not_be_made_leaves_the_rest_of_the_bundle(tmp_path, monkeypatch):
    def breaks(fp32, path, *_):
        path.write_bytes(b"half")
        raise Failure("it broke")

    monkeypatch.setitem(exporting.MAKERS, "int8", breaks)
    card = {"schemes": {"fp32": {}}}
    judged = exporting.Judged(IMAGES, np.zeros(len(IMAGES), int), np.arange(len(IMAGES)), [], np.zeros((len(IMAGES), 3), np.float32))
    (said,) = exporting._export_smaller("int8", tmp_path, card, None, judged, None, exporting.Gate(0.5, False, 10))
    assert said == "int8 is refused: it can't be made: it broke" and not list(tmp_path.iterdir())
    assert card == {"schemes": {"fp32": {}}, "refused": {"int8": {"why": "it can't be made: it broke"}}}
