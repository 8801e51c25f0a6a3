"""An fp32 file whose weights are not the run's, by ever so little, is not exported."""

import io
import shutil

import numpy as np
import pytest
from PIL import Image

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")
from small_models import PX, spread_answers, write_model  # noqa: E402

from export import exporting  # noqa: E402
from export.runtime import run_unfused  # noqa: E402
from export.verify import hostile_images  # noqa: E402
from family.data.images import Preprocessing  # noqa: E402
from family.data.ontology import from_leaves  # noqa: E402
from family.errors import Failure, UserError  # noqa: E402
from family.outputs import read_json  # noqa: E402

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


def scale_stored(path, name: str, by: float) -> None:
    model = onnx.load(path)
    (tensor,) = [tensor for tensor in model.graph.initializer if tensor.name == name]
    tensor.CopyFrom(onnx.numpy_helper.from_array(scaled(onnx.numpy_helper.to_array(tensor), by), name))
    onnx.save(model, path)


def with_nan(weights):
    weights = weights.copy()
    weights.flat[0] = np.nan
    return weights


def check(source, path, served, exact=None):
    """`exact`: the run's answers in float64; by default they are as they are in float32."""

    def recount(images):
        at = next(k for k, image in enumerate(IMAGES) if np.array_equal(image, images[0]))
        return tuple(part[at : at + 1] for part in exact or source)

    return exporting._check_parity(source, path, served, IMAGES, 8, recount)


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
        check(source, tmp_path / "fp32.onnx", source)


def test_a_file_that_is_right_as_written_and_wrong_as_served_is_refused(run):
    path, source = run
    for wrong, said in ((moved(source, 3, dp=1e-3), "as served max .dp. 1.00e-03"), (moved(source, 3, de=2e-3), "as served .* max .de. 2.00e-03")):
        with pytest.raises(Failure, match=f"{said}.*worst as served on photo 3, where the run's own answers lie max .dp. 0.00e.00, .*float64.*e-03") as told:
            check(source, path, wrong)
        assert "magnifies" not in str(told.value), "the run is sure of its digits"


def test_the_runs_own_weights_pass(run):
    path, source = run
    found = check(source, path, source)
    assert found["agreement"] == 1 and found["max_dp"] == found["max_de"] == 0 and found["served"]["n"] == len(IMAGES) and found["photos"]["n"] == 8


@pytest.mark.parametrize("at", [7, 8])
@pytest.mark.parametrize("off", [{"dp": 1.2e-5}, {"de": 1.2e-4}])
def test_no_image_may_be_off_by_more_and_who_rounds_is_told(run, at, off):
    """Neither a photo nor one that no photo is."""
    path, written = run
    source, exact = moved(written, at, **off), moved(written, at, **{key: value / 2 for key, value in off.items()})
    where, half = "photo 7" if at < 8 else "hostile image 0", "max .dp. 6.*e-06" if "dp" in off else "max .de. 6.*e-05"
    said = f"worst as written on {where}, where the run's own answers lie .*{half}.* in float64, and the file's .*{half}.*magnifies"
    with pytest.raises(Failure, match=said):
        check(source, path, written, exact=exact)
    barely = moved(written, at, **{key: value / 1.5 for key, value in off.items()})
    assert check(barely, path, written)["agreement"] == 1


def test_a_wrong_file_of_a_run_that_rounds_much_is_not_called_rounding(run):
    path, written = run
    exact = moved(written, 8, dp=1e-2)
    with pytest.raises(Failure, match="hostile image 0, where the run's own answers lie max .dp. 3.*e-06.*the file's max .dp. 1.00e-02") as told:
        check(moved(exact, 8, dp=3e-6), path, written, exact=exact)
    assert "magnifies" not in str(told.value)


def test_the_image_whose_best_category_differs_is_told(run):
    path, written = run
    p = written[0].astype(float)
    p[9, :2] = 0.4, 0.4 + 2e-6
    p[9, 2:] = 0.2 / (p.shape[1] - 2)
    q = p.copy()
    q[9, :2] = 0.4 + 2e-6, 0.4
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Failure, match="worst as written on hostile image 1,"):
        patch.setattr(exporting, "run_unfused", lambda *_: (q, written[1]))
        check((p, written[1]), path, (p, written[1]))


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
    judged = exporting.Judged(IMAGES, np.zeros(len(IMAGES), int), np.arange(len(IMAGES)), [], np.zeros((len(IMAGES), 3), np.float32), 9)
    (said,) = exporting._export_smaller("int8", tmp_path, card, None, judged, None, exporting.Gate(0.5, False, 10))
    assert said == "int8 is refused: it can't be made: it broke" and not list(tmp_path.iterdir())
    assert card == {"schemes": {"fp32": {}}, "refused": {"int8": {"why": "it can't be made: it broke"}}}


def smaller(tmp_path, write_bundle, monkeypatch, why="", ratio=2.0):
    """Let a copy of fp32 be made as int8, called none for a reason, or so many times as fast; return what is said, and the card."""
    tree = from_leaves([("1", "A"), ("2", "B"), ("3", "C")])
    folder = write_bundle(tmp_path / "bundle", tree, PX, node_ids={})
    card = read_json(folder / "card.json")

    def make(fp32, path, *_):
        path.write_bytes(fp32.read_bytes())
        return {"convolutions_in_float": 0}, {"int8_convolutions": 0}, why

    monkeypatch.setitem(exporting.MAKERS, "int8", make)
    found = {"ratio": ratio, "interval": [ratio - 0.1, ratio + 0.1], "rounds": 20, "images_a_round": 1}
    monkeypatch.setattr(exporting, "compare_speed", lambda *_: found)
    reference = exporting._answers(folder, card, "fp32", IMAGES)
    levels = [(np.arange(3), 3)]
    judged = exporting.Judged(IMAGES, reference.argmax(1), np.arange(len(IMAGES)), levels, reference, 9)
    return exporting._export_smaller("int8", folder, card, None, judged, Preprocessing(PX), exporting.Gate(0.5, False, 50)), card, folder


@pytest.mark.parametrize("by", [1, 1e4, np.inf])
def test_fp16_that_a_gpu_would_overflow_is_none_though_a_processor_answers(run, tmp_path, by):
    for name in ("fp32", "fp16"):
        shutil.copy(run[0], tmp_path / f"{name}.onnx")
    scale_stored(tmp_path / "fp32.onnx", "w0", by)
    judged = exporting.Judged(IMAGES, np.zeros(len(IMAGES), int), np.arange(len(IMAGES)), [], np.zeros((len(IMAGES), 3), np.float32), 9)
    _, proof, why = exporting._make_fp16(tmp_path / "fp32.onnx", tmp_path / "fp16.onnx", None, {}, Preprocessing(PX), judged)
    assert ("16 bits hold 65,504" in why) == (by > 1) == (proof["largest_activation"] > 65504), why


def test_what_is_stored_is_small_and_upright_and_says_nothing_of_where_it_was_taken():
    told, image = Image.Exif(), Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 40, 3), np.uint8))
    told[0x0112], told[0x010F] = 6, "a camera"
    told.get_ifd(0x8825)[1] = "N"
    for kind in ("JPEG", "WEBP"):
        buffer = io.BytesIO()
        image.save(buffer, kind, exif=told)
        for px in (100, 30):
            stored = Image.open(io.BytesIO(exporting._stored(buffer.getvalue(), px)))
            assert stored.format == "JPEG" and not stored.getexif() and stored.size == ((20, 40) if px == 100 else (15, 30))


def test_a_file_that_is_called_int8_and_is_none_is_not_in_the_bundle(tmp_path, write_bundle, monkeypatch):
    (said,), card, folder = smaller(tmp_path, write_bundle, monkeypatch, why="9 of its 9 convolutions run in float, 0 of them on purpose")
    assert said == "int8 is refused: since it is none: 9 of its 9 convolutions run in float, 0 of them on purpose"
    assert list(card["schemes"]) == ["fp32"] and card["refused"]["int8"]["proof"] == {"int8_convolutions": 0}
    assert not (folder / "model.int8.onnx").exists()


@pytest.mark.parametrize(("ratio", "warned"), [(2.0, None), (1.05, "is not shown"), (0.5, "slower than fp32")])
def test_a_file_that_is_not_faster_is_kept_with_a_warning(tmp_path, write_bundle, monkeypatch, ratio, warned):
    said, card, folder = smaller(tmp_path, write_bundle, monkeypatch, ratio=ratio)
    entry = card["schemes"]["int8"]
    assert said == [] and (folder / "model.int8.onnx").exists() and entry["speed"]["ratio"] == ratio
    assert warned in entry["warning"] if warned else "warning" not in entry
