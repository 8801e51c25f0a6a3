"""An fp32 file whose weights are not the run's, by ever so little, is not exported."""

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")
from small_models import PX, spread_answers, write_model  # noqa: E402

from export import exporting  # noqa: E402
from export.runtime import run_unfused  # noqa: E402
from export.verify import hostile_images  # noqa: E402
from family.errors import Failure, UserError  # noqa: E402

IMAGES = np.concatenate([np.random.default_rng(0).integers(0, 256, (8, PX, PX, 3), np.uint8), hostile_images(PX)])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The file as it should be, and its answers, in the place of the run's."""
    path = tmp_path_factory.mktemp("parity") / "fp32.onnx"
    write_model(path)
    spread_answers(path, IMAGES)
    return path, run_unfused(path, IMAGES)


def tail(answers):
    return tuple(part[8:] for part in answers)


def scaled(weights, by: float):
    return (weights * np.float32(by)).astype(np.float32)


def scale_stored(path, name: str, by: float) -> None:
    model = onnx.load(path)
    (tensor,) = [tensor for tensor in model.graph.initializer if tensor.name == name]
    tensor.CopyFrom(onnx.numpy_helper.from_array(scaled(onnx.numpy_helper.to_array(tensor), by), name))
    onnx.save(model, path)


def with_nan(weights):
    weights = weights.copy()
    weights.flat[0] = np.nan
    return weights


def check(source, path, served, n_photos=8, recount=None):
    return exporting._check_parity(source, path, served, IMAGES, n_photos, recount)


def moved(answers, at: int, dp: float = 0.0, de: float = 0.0):
    """Answers of which one image's first probability, and the first value of its embedding, are others, the latter by a share of its largest."""
    p, e = (part.astype(float) for part in answers)
    p[at, 0] += dp
    e[at, 0] += de * max(np.abs(e[at]).max(), np.median(np.abs(e).max(axis=1)))
    return p, e


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
        check(source, tmp_path / "fp32.onnx", source, recount=lambda images: (tail(source), [tail(source)]))


def test_a_file_that_is_right_as_written_and_wrong_as_served_is_refused(run):
    path, source = run
    for wrong, said in ((moved(source, 3, dp=1e-3), "as served max .dp. 1.00e-03"), (moved(source, 3, de=2e-3), "as served .* max .de. 2.00e-03")):
        with pytest.raises(Failure, match=said):
            check(source, path, wrong)


def test_the_runs_own_weights_pass(run):
    path, source = run
    found = check(source, path, source)
    assert found["agreement"] == 1 and found["max_dp"] == found["max_de"] == 0 and found["served"]["n"] == len(IMAGES) and found["photos"]["n"] == 8
    assert "rounding" not in found, "nobody asked for float64"


@pytest.mark.parametrize("limit", [{"dp": 1e-5}, {"de": 1e-4}])
@pytest.mark.parametrize(
    ("own", "at", "passes"),
    [
        (1.2, 8, True),  # times the limit: the run's float32 is off by as much as the two differ
        (1.2, 7, False),  # of a photo
        (0.0, 8, False),  # the run is sure, so that the file is off
        (20, 8, False),  # further than any float32 may be off
    ],
)
def test_what_the_run_rounds_itself_is_no_fault_of_the_file_on_images_that_no_photo_is(run, limit, own, at, passes):
    path, written = run
    (key, least), = limit.items()
    source = moved(written, at, **{key: (own or 1.2) * least})
    exact = written if own else source
    if not passes:
        with pytest.raises(Failure, match=f"worst on {'photo 7' if at < 8 else 'hostile image 0'}" if key == "dp" else "fp32 does not give the run's"):
            check(source, path, written, 8, lambda images: (tail(exact), [tail(source)]))
        return
    found = check(source, path, written, 8, lambda images: (tail(exact), [tail(written), tail(source)]))["rounding"]
    name = f"max_{key}"
    assert found["n"] == len(IMAGES) - 8 and found["exported"] == {"max_dp": 0, "max_de": 0}
    assert found["source"][name] == pytest.approx(own * least, rel=5e-2), "the draw that is off most counts"
    assert found["allowed"][name] == pytest.approx(2 * own * least, rel=5e-2)


def test_a_file_twice_as_far_off_as_the_run_is_refused_and_told(run):
    path, written = run
    exact, source = moved(written, 8, dp=-3e-5), moved(written, 8, dp=-1.8e-5)  # 1.2e-5 from what is exact; the file's lies 3e-5 from it
    with pytest.raises(Failure, match=r"its own lie max .dp. 1.2.e-05.*, the file's max .dp. 3.00e-05.*\(allowed max .dp. 2.4.e-05"):
        check(source, path, written, 8, lambda images: (tail(exact), [tail(source)]))


def test_a_wrong_graph_shows_in_embeddings_where_probabilities_hardly_move(tmp_path):
    """As in a model that learned nothing yet: its answers are nearly the same for all images."""
    path = tmp_path / "fp32.onnx"
    write_model(path)
    scale_stored(path, "w", 1e-6)
    source = run_unfused(path, IMAGES)
    scale_stored(path, "w0", 1.01)
    assert np.abs(source[0] - run_unfused(path, IMAGES)[0]).max() < 1e-5
    with pytest.raises(Failure, match="fp32 does not give the run's answers: max .dp. .*e-0[6-9]"):
        check(source, path, source)


@pytest.mark.parametrize("kind", [Failure, UserError])
def test_what_can_not_be_made_leaves_the_rest_of_the_bundle(tmp_path, monkeypatch, kind):
    def breaks(fp32, path, *_):
        path.write_bytes(b"half")
        raise kind("it broke")

    monkeypatch.setitem(exporting.MAKERS, "int8", breaks)
    card = {"schemes": {"fp32": {}}}
    judged = exporting.Judged(IMAGES, np.zeros(len(IMAGES), int), np.arange(len(IMAGES)), [], np.zeros((len(IMAGES), 3), np.float32))
    (said,) = exporting._export_smaller("int8", tmp_path, card, None, judged, None, exporting.Gate(0.5, False, 10))
    assert said == "int8 is refused: it can't be made: it broke" and not list(tmp_path.iterdir())
    assert card == {"schemes": {"fp32": {}}, "refused": {"int8": {"why": "it can't be made: it broke"}}}
