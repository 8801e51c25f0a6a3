"""Ranges of activations: one histogram a tensor, collected over images, and several ways to read a range off it. No TensorFlow."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnxruntime as ort

from export.runtime import open_on_cpu, session_options
from family.errors import Failure
from family.progress import progress

N_BINS = 2048
_SMALLEST = -120  # the power of two of the narrowest bin; its inverse is a float32
_N_HIGH, _N_LOW = 128, 64  # ends that least squares tries on either side of zero


@dataclass
class Histogram:
    """How often a tensor's values lie in each bin, with bins that are as wide as a power of two and meet at zero.

    Values come in one after another, and nobody knows beforehand how far they reach. A wider range doubles the width until at most N_BINS bins hold all
    values and zero: two bins become one, so counts stay exact and there are between N_BINS / 2 and N_BINS bins (ONNX Runtime's collector keeps the width that
    its first images gave it, on both sides of zero: half of its bins are empty where nothing is negative).
    """

    power: int = _SMALLEST  # a bin is 2^power wide
    first: int = 0  # the first bin begins at first * 2^power
    counts: np.ndarray = field(default_factory=lambda: np.zeros(1, np.int64))  # [n_bins]
    n_zeros: int = 0
    low: float = math.inf  # the least and the greatest value, exactly
    high: float = -math.inf
    sums: np.ndarray | float = 0.0  # float64 [n_channels], over everything but axis 1
    n_a_channel: int = 0  # values that each sum has

    @property
    def means(self) -> np.ndarray:
        """float64 [n_channels]."""
        return self.sums / max(self.n_a_channel, 1)

    @property
    def edges(self) -> np.ndarray:
        """float64 [n_bins + 1]."""
        return np.arange(self.first, self.first + len(self.counts) + 1) * 2.0**self.power

    def add(self, values: np.ndarray) -> None:
        """Count values, float32 of any shape; the channels of their means are along axis 1, which has one length at every call.

        Raises:
            Failure: one is no number.
        """
        if not values.size:
            return
        low, high = float(values.min()), float(values.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            raise Failure("an activation is infinite or no number, so it has no range")
        self.low, self.high = min(self.low, low), max(self.high, high)
        channels = values.reshape(len(values), values.shape[1] if values.ndim > 1 else 1, -1)
        self.sums = self.sums + channels.sum(axis=(0, 2), dtype=np.float64)
        self.n_a_channel += channels.shape[0] * channels.shape[2]
        self._widen()
        bins = np.floor(values.ravel() * np.float32(2.0**-self.power))  # exact, being a power of two
        self.counts += np.bincount((bins - self.first).astype(np.intp), minlength=len(self.counts))
        self.n_zeros += values.size - int(np.count_nonzero(values))

    def _widen(self) -> None:
        """Make room for values from low to high, and for zero."""
        low, high = min(self.low, 0.0), max(self.high, 0.0)
        power = self.power
        while math.floor(high * 2.0**-power) - math.floor(low * 2.0**-power) >= N_BINS:
            power += 1
        bins = np.arange(self.first, self.first + len(self.counts)) >> min(power - self.power, 62)
        first, last = math.floor(low * 2.0**-power), math.floor(high * 2.0**-power)
        counts = np.zeros(last - first + 1, np.int64)
        np.add.at(counts, bins - first, self.counts)
        self.power, self.first, self.counts = power, first, counts


def collect(model: onnx.ModelProto, operators: Iterable[str], images: np.ndarray) -> dict[str, Histogram]:
    """Return the histogram of each float tensor that goes into or comes out of these operators, constants excepted.

    The activations of one image are in memory at once.

    Args:
        model: with inferred types.
        images: uint8 [n, px, px, 3].
    """
    names = _float_tensors(model, set(operators))
    session = _session_of_all(model, names)
    found = {name: Histogram() for name in names}
    for image in progress(images, "calibrating"):
        for name, values in zip(names, session.run(names, {"image": image[None]}), strict=True):
            found[name].add(values)
    return found


def largest_activation(model: onnx.ModelProto, images: np.ndarray) -> float:
    """Return the largest absolute value of all float tensors of a model with inferred types on uint8 [n, px, px, 3]; infinite where one is no number."""
    names = _float_tensors(model, {node.op_type for node in model.graph.node})
    session, largest = _session_of_all(model, names), 0.0
    for image in progress(images, "looking for overflows"):
        for values in session.run(names, {"image": image[None]}):
            found = float(np.abs(values).max(initial=0.0))
            largest = max(largest, found if math.isfinite(found) else math.inf)
    return largest


def memory_mb(histograms: Iterable[Histogram], n_images: int) -> float:
    """Return what `collect` holds at once, in units of 10^6 bytes: the histograms, and the activations of one image, float32."""
    return sum(one.counts.nbytes + 4 * int(one.counts.sum()) // max(n_images, 1) for one in histograms) / 1e6


def _float_tensors(model: onnx.ModelProto, operators: set[str]) -> list[str]:
    graph = model.graph
    constants = {i.name for i in graph.initializer}
    floats = {v.name for v in (*graph.value_info, *graph.output) if v.type.tensor_type.elem_type == onnx.TensorProto.FLOAT}
    names = (name for node in graph.node if node.op_type in operators for name in (*node.input, *node.output))
    return list(dict.fromkeys(name for name in names if name in floats and name not in constants))


def _session_of_all(model: onnx.ModelProto, names: list[str]) -> ort.InferenceSession:
    """Open a model that gives these tensors too."""
    wide = onnx.ModelProto.FromString(model.SerializeToString())
    there = {value.name for value in wide.graph.output}
    wide.graph.output.extend(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in names if name not in there)
    return open_on_cpu(wide.SerializeToString(), session_options())


def min_max(histogram: Histogram) -> tuple[float, float]:
    """Return the whole extent."""
    return histogram.low, histogram.high


def percentile(percent: float) -> Callable[[Histogram], tuple[float, float]]:
    """Return what cuts at most half of the rest off at either end; its ends are ends of bins."""

    def cut(histogram: Histogram) -> tuple[float, float]:
        edges, counts = histogram.edges, histogram.counts
        most = (100 - percent) / 200 * counts.sum()
        below, above = np.cumsum(counts), np.cumsum(counts[::-1])
        low = edges[np.searchsorted(below, most, side="right")]
        high = edges[::-1][np.searchsorted(above, most, side="right")]
        return max(float(low), histogram.low), min(float(high), histogram.high)

    return cut


def least_squares(histogram: Histogram) -> tuple[float, float]:
    """Return the range whose 256 levels have the least squared error over all values.

    What lies inside is rounded, step^2 / 12 on average, but for zero, which is a level; what lies outside moves to the nearer end. Values count as
    if they were in the middle of their bin.
    """
    edges, counts = histogram.edges, histogram.counts
    middles, weights = (edges[:-1] + edges[1:]) / 2, counts.astype(np.float64)
    lows = _ends(edges[edges <= 0][::-1], histogram.low, _N_LOW)
    highs = _ends(edges[edges >= 0], histogram.high, _N_HIGH)
    clipped = _clipped(-middles[::-1], weights[::-1], -lows)[:, None] + _clipped(middles, weights, highs)[None]
    n_outside = (weights * (middles < lows[:, None])).sum(1)[:, None] + (weights * (middles > highs[:, None])).sum(1)[None]
    n_rounded = np.maximum(weights.sum() - n_outside - histogram.n_zeros, 0)
    step = (highs[None] - lows[:, None]) / 255
    best = np.unravel_index(np.argmin(clipped + n_rounded * step**2 / 12), clipped.shape)
    return float(lows[best[0]]), float(highs[best[1]])


def _ends(edges: np.ndarray, extent: float, n: int) -> np.ndarray:
    """Return up to n ends on one side of zero, outwards, the last of which is the extent where it lies on this side."""
    chosen = edges[np.unique(np.linspace(0, len(edges) - 1, n).astype(int))]
    extent = max(extent, 0.0) if edges[-1] > 0 else min(extent, 0.0)
    return np.unique(np.append(chosen[np.abs(chosen) < abs(extent)], extent))


def _clipped(middles: np.ndarray, weights: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Return for each end the squared error of what lies beyond it."""
    return (weights * np.maximum(middles - ends[:, None], 0) ** 2).sum(axis=1)


# Entropy (the divergence between a histogram and its quantized self) is left out: it was never the best, and it is slow.
RANGES: dict[str, Callable[[Histogram], tuple[float, float]]] = {
    "percentile 99.999": percentile(99.999),
    "percentile 99.99": percentile(99.99),
    "percentile 99.9": percentile(99.9),
    "min-max": min_max,
    "least squares": least_squares,
}
