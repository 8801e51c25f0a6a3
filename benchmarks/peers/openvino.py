"""OpenVINO as a peer of `family bench --peers`: our fp32 file as OpenVINO's users run it, and as NNCF quantizes it. No TensorFlow."""

import time
from collections import Counter
from itertools import product
from pathlib import Path

import numpy as np
import openvino

HINTS = {"fp32": ("f32",), "bf16": ("bf16",), "int8": ("f32", "bf16")}  # of int8: the precision of what NNCF left in float
_MULTIPLYING = ("Convolution", "FullyConnected", "MatMul")
_TRIAL_ROUNDS, _TRIAL_IMAGES = 15, 4
_MOST_SPOILT = 0.05  # of the images, that other settings get right


class OpenVINO:
    """A compiled model with the latency hint on so many threads.

    Args:
        path: ONNX or OpenVINO's own .xml.
        settings: {"batch": "N" (free) or "1", "pinned": whether its threads are bound to cores, "hint": "f32" or "bf16"}.
    """

    dtype = np.uint8

    def __init__(self, path: Path, settings: dict, n_threads: int):
        model = openvino.Core().read_model(path)
        self._one_at_a_time = settings["batch"] == "1"
        if self._one_at_a_time:
            model.reshape({"image": [1, *(dim.get_length() for dim in list(model.input("image").partial_shape)[1:])]})
        self.compiled = openvino.Core().compile_model(model, "CPU", {
            "PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": n_threads, "ENABLE_CPU_PINNING": settings["pinned"],
            "INFERENCE_PRECISION_HINT": settings["hint"],
        })  # fmt: skip
        self._request, self._output = self.compiled.create_infer_request(), self.compiled.output("probabilities")

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Return float32 [n, n_classes] probabilities of uint8 [n, px, px, 3] RGB images."""
        if self._one_at_a_time and len(images) != 1:
            return np.concatenate([self.predict(image[None]) for image in images])
        return self._request.infer([images], share_inputs=True, share_outputs=True)[self._output].copy()


def can_bf16() -> bool:
    """Say whether OpenVINO has bf16 kernels for this processor; without them it takes the hint and computes in fp32."""
    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def quantize(fp32: Path, int8: Path, images: np.ndarray, preset: str) -> None:
    """Write NNCF's post-training int8 of an ONNX file, as .xml and .bin.

    Args:
        images: uint8 [n, px, px, 3], all of which it is calibrated on.
        preset: `performance`, NNCF's default, or `mixed`: asymmetric activations, meant for swish and the like.
    """
    import nncf

    model = nncf.quantize(
        openvino.Core().read_model(fp32), nncf.Dataset([image[None] for image in images]),
        preset=nncf.QuantizationPreset(preset), subset_size=len(images),
    )  # fmt: skip
    openvino.save_model(model, int8, compress_to_fp16=False)


def choose_settings(path: Path, precision: str, n_threads: int, images: np.ndarray, reference: np.ndarray) -> tuple[dict, dict[str, dict]]:
    """Return the settings in which single images were answered the fastest in a trial, and {"ms", "agreement"} of all that were tried.

    They take turns, so that a busy machine slows all; the median of rounds counts, of one thread in processor time, which leaves out waiting. Settings
    that spoil the answers are passed over: a small network that NNCF had quantized answered the same to every image with a free batch (OpenVINO
    2026.4.1), and rightly with a batch of 1.

    Args:
        images: uint8 [n, px, px, 3].
        reference: float32 [n, n_classes], our fp32's answers.
    """
    hints = [hint for hint in HINTS[precision] if hint != "bf16" or can_bf16()]
    wanted = [{"batch": batch, "pinned": pinned, "hint": hint} for batch, pinned, hint in product(("N", "1"), (True, False), hints)]
    opened = [OpenVINO(path, settings, n_threads) for settings in wanted]
    agreements = [np.mean([model.predict(image[None])[0].argmax() for image in images] == reference.argmax(1)) for model in opened]
    spent, clock = [[] for _ in wanted], time.process_time if n_threads == 1 else time.perf_counter
    for _ in range(_TRIAL_ROUNDS):
        for model, found in zip(opened, spent, strict=True):
            began = clock()
            for k in range(_TRIAL_IMAGES):
                model.predict(images[k % len(images)][None])
            found.append(1000 * (clock() - began) / _TRIAL_IMAGES)
    ms = [float(np.median(found)) for found in spent]
    usable = [k for k, agreement in enumerate(agreements) if agreement >= max(agreements) - _MOST_SPOILT]
    tried = {tell_settings(s): {"ms": ms[k], "agreement": float(agreements[k])} for k, s in enumerate(wanted)}
    return wanted[min(usable, key=lambda k: ms[k])], tried


def tell_settings(settings: dict) -> str:
    """Say settings in a few words."""
    return f"batch {settings['batch']}, {'pinned' if settings['pinned'] else 'not pinned'}, {settings['hint']}"


def executed(model: OpenVINO) -> dict[str, dict[str, int]]:
    """Return layer -> precision -> how many, of the layers that multiply, as the compiled model runs them."""
    found: dict[str, Counter] = {}
    for node in model.compiled.get_runtime_model().get_ops():
        about = node.get_rt_info()
        layer, precision = about["layerType"].value, about["runtimePrecision"].value
        if layer in _MULTIPLYING:
            found.setdefault(layer, Counter())[precision] += 1
    return {layer: dict(counts) for layer, counts in sorted(found.items())}


def why_not(precision: str, layers: dict[str, dict[str, int]]) -> str:
    """Return why what runs must not be called by a precision, or "": hints are taken and then ignored where there is no kernel.

    Args:
        layers: as `executed` returns them.
    """
    counts = sum((Counter(found) for found in layers.values()), Counter())
    names = {"fp32": ("f32",), "bf16": ("bf16",), "int8": ("i8", "u8")}[precision]
    right, n = sum(counts[name] for name in names), counts.total()
    if right == 0 or right < (n if precision == "fp32" else n / 2):
        return f"{right} of its {n} layers that multiply run in {precision}: {dict(counts)}"
    return ""
