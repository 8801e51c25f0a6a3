"""Ranges of activations: histograms that are exact however values come, and what is read off them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")
onnx = pytest.importorskip("onnx", reason="onnx is not installed")
from networks import draw_images, write_network  # noqa: E402

from export.calibrate import N_BINS, RANGES, Histogram, collect, least_squares, memory_mb, min_max, percentile  # noqa: E402
from export.quantize import OPERATORS, load_fp32  # noqa: E402
from family.errors import Failure  # noqa: E402

values = st.floats(-(2.0**60), 2.0**60, width=32).filter(lambda x: x == 0 or abs(x) > 2.0**-50)  # float32 drops what is much smaller than a bin


def histogram_of(*parts) -> Histogram:
    found = Histogram()
    for part in parts:
        found.add(np.float32(part))
    return found


@given(st.lists(st.lists(values, min_size=1, max_size=30), min_size=1, max_size=6))
def test_a_histogram_counts_what_numpy_counts_in_its_bins_whatever_came_first(parts):
    found, everything = histogram_of(*parts), np.concatenate([np.float32(part) for part in parts]).astype(np.float64)
    assert (found.low, found.high) == (everything.min(), everything.max())
    assert len(found.counts) <= N_BINS and found.counts.sum() == len(everything) and found.n_zeros == (everything == 0).sum()
    place = np.searchsorted(found.edges, everything, side="right") - 1
    assert (np.bincount(place, minlength=len(found.counts)) == found.counts).all()
    extent = max(everything.max(), 0) - min(everything.min(), 0)
    assert 0 in found.edges and (extent < 2.0**-100 or len(found.counts) >= N_BINS // 2)


@given(st.lists(values, min_size=2, max_size=40), st.integers(1, 39))
def test_a_histogram_does_not_depend_on_how_values_are_cut(some, cut):
    cut = min(cut, len(some) - 1)
    one, two = histogram_of(some), histogram_of(some[cut:], some[:cut])
    assert (one.power, one.first, one.n_zeros, one.low, one.high) == (two.power, two.first, two.n_zeros, two.low, two.high)
    assert (one.counts == two.counts).all()


def test_ranges_are_those_of_the_values_to_the_width_of_a_bin():
    rng = np.random.default_rng(0)
    parts = [rng.normal(0, scale, 19_667) ** 3 for scale in (0.01, 1, 0.3)]
    found, everything = histogram_of(*parts), np.concatenate([np.float32(part) for part in parts])
    width = 2.0**found.power
    assert min_max(found) == (np.float32(everything.min()), np.float32(everything.max()))
    ordered = np.sort(everything)
    for percent in (99.999, 99.99, 99.9):
        low, high = percentile(percent)(found)
        n_cut = int((100 - percent) / 200 * len(everything))
        assert 0 <= ordered[n_cut] - low < width and 0 <= high - ordered[-1 - n_cut] <= width


def squared_error(some: np.ndarray, low: float, high: float) -> float:
    step = (high - low) / 255
    return float((((np.clip(np.round((some - low) / step), 0, 255) * step + low) - some) ** 2).sum())


@pytest.mark.parametrize("draw", [lambda rng: rng.normal(0, 1, 50_000) ** 3, lambda rng: np.maximum(rng.normal(0, 1, 50_000), 0) ** 2,
                                  lambda rng: np.append(rng.uniform(-0.28, 3, 50_000), 40.0)])  # fmt: skip
def test_least_squares_errs_less_than_the_other_ranges(draw):
    some = draw(np.random.default_rng(0))
    found = histogram_of(some)
    errors = {name: squared_error(some, *(min(read(found)[0], 0), read(found)[1])) for name, read in RANGES.items()}
    assert errors["least squares"] <= 1.03 * min(errors.values()) and errors["least squares"] < errors["min-max"]


def test_an_even_spread_is_not_cut():
    assert least_squares(histogram_of(np.linspace(-1, 2, 10_000))) == (-1, 2)


@pytest.mark.parametrize("read", RANGES.values())
@pytest.mark.parametrize("some", [[0.0] * 9, [3.5], [-2.0, -2.0], [1e-30, 0]])
def test_constants_have_a_range(read, some):
    low, high = read(histogram_of(some))
    assert min(0, low) == min(0, np.float32(min(some))) and max(0, high) == max(0, np.float32(max(some)))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_told(value):
    with pytest.raises(Failure, match="no number"):
        histogram_of([1, value])


def test_histograms_of_a_network_are_those_of_its_activations(tmp_path):
    write_network(tmp_path / "fp32.onnx")
    model, images = load_fp32(tmp_path / "fp32.onnx"), draw_images(6)
    found = collect(model, OPERATORS, images)
    assert "embedding" in found and "probabilities" not in found and "image" not in found
    assert not set(found) & {i.name for i in model.graph.initializer}
    embedding = np.concatenate([onnx.reference.ReferenceEvaluator(model).run(["embedding"], {"image": image[None]})[0] for image in images])
    assert found["embedding"].counts.sum() == embedding.size and found["embedding"].high == pytest.approx(embedding.max(), rel=1e-4)
    np.testing.assert_allclose(found["embedding"].means, embedding.mean(axis=0), rtol=1e-4)
    pixels = images.astype(np.float64).mean(axis=(0, 1, 2))
    np.testing.assert_allclose(found["cast:0"].means, pixels, rtol=1e-6)
    assert found["cast:0"].high == images.max() and found["m/block1a_activation/Relu6:0"].low >= 0


def test_memory_is_that_of_histograms_and_of_one_images_activations():
    one = Histogram()
    for _ in range(3):
        one.add(np.linspace(-1, 1, 1000, dtype=np.float32).reshape(1, 10, 100))
    assert memory_mb([one], 3) == pytest.approx((8 * len(one.counts) + 4000) / 1e6)
    assert memory_mb([], 0) == 0
