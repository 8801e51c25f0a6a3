"""The Predictor: what is benchmarked, evaluated and served is this one thing. NumPy, Pillow and ONNX Runtime; no TensorFlow."""

import collections
import json
import math
import os
import platform
import sys
import tempfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np
import onnxruntime as ort

from export.bundle import Bundle
from family.data.images import decode_image
from family.errors import Failure, UserError, first_line, unknown_name
from family.machine import cpu_flags, n_cores

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}


@dataclass(frozen=True)
class Settings:
    """How a bundle is run."""

    scheme: str = "fp32"
    provider: str = "auto"  # the best that works here, or the one named, or an error
    threads: int = 0  # 0: the cores that this process owns

    @property
    def n_threads(self) -> int:
        return self.threads or n_cores()


def default_settings(bundle: Bundle, scheme: str | None, provider: str | None, threads: int | None) -> Settings:
    """Return what was asked for; else what `pick` chose for this bundle; else the defaults."""
    chosen = bundle.card.get("serve", {})
    first = "fp32" if "fp32" in bundle.schemes else next(iter(bundle.schemes))
    return Settings(scheme or chosen.get("scheme", first), provider or chosen.get("provider", "auto"),
                    threads if threads is not None else chosen.get("threads", 0))  # fmt: skip


class Predictor:
    """A bundle's model, ready to answer.

    Raises:
        UserError: there is no such scheme, provider or number of threads, or the file is not the card's.
        Failure: the file can't be opened, or a provider was named and another one runs.
    """

    def __init__(self, bundle: Bundle, settings: Settings):
        if settings.threads < 0:
            raise UserError(f"--threads takes 1 or more, or 0 for all cores; got {settings.threads}")
        self.bundle, self.settings = bundle, settings
        self.how = bundle.preprocessing
        path = bundle.model_path(settings.scheme)
        self.session = open_session(str(path), settings)
        _check_shapes(self.session, bundle.card, path)
        self.provider = _running_provider(self.session)
        if settings.provider not in ("auto", self.provider):
            raise Failure(
                f"the provider {settings.provider!r} was asked for and {self.provider!r} runs; is there such a device, with its libraries?"
            )

        if self.provider == "cpu" and (why := _saturates(bundle.schemes[settings.scheme])):
            print(f"warning: {path} may answer otherwise here than where it was made, and was not judged so: {why}; export the run on such a machine, or "
                  f"see what `family verify {bundle.folder}` says", file=sys.stderr)  # fmt: skip

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Return float32 [n, n_classes] probabilities of uint8 [n, px, px, 3] RGB images.

        Raises:
            Failure: some are no numbers.
        """
        found = self.session.run(["probabilities"], {"image": images})[0]
        if not math.isfinite(found.sum()):
            n = np.count_nonzero(~np.isfinite(found).all(axis=1))
            raise Failure(f"{self.bundle.card.get('name')}, {self.settings.scheme}: the answers of {n} of {len(found)} images are no numbers")
        return found

    def embed(self, images: np.ndarray) -> np.ndarray:
        """Return float32 [n, d] embeddings of uint8 [n, px, px, 3] RGB images."""
        return np.concatenate([self.session.run(["embedding"], {"image": part})[0] for part in in_parts(images)])

    def decode(self, data: bytes) -> np.ndarray:
        """Return uint8 [1, px, px, 3] of encoded bytes, as the model wants it."""
        return decode_image(data, self.how)[None]

    def predict_bytes(self, data: bytes) -> np.ndarray:
        """Return float32 [n_classes] probabilities of one encoded image: what a request costs."""
        return self.predict(self.decode(data))[0]


def weight_bits(flags: Collection[str], architecture: str | None = None) -> tuple[int, str]:
    """Return how many bits of a weight are used on a processor with these features, and why.

    Source: ONNX Runtime, "Quantize ONNX models", on U8S8 and `reduce_range`: without VNNI, x86 adds products of uint8 and int8 two at a time in 16 bits.
    """
    architecture = architecture or platform.machine()
    vnni = sorted(flag for flag in flags if flag in ("avx512_vnni", "avx_vnni"))
    if vnni:
        return 8, f"the processor has {vnni[0]}, which adds products of uint8 and int8 in 32 bits"
    if architecture.lower().startswith(("arm", "aarch64")):
        return 8, f"{architecture} adds products of uint8 and int8 without saturation"
    return 7, f"{architecture} without VNNI adds two products of uint8 and int8 in 16 bits, which saturate where weights have 8"


def _saturates(entry: dict) -> str:
    """Return why this processor can't add what a file multiplies, or ""."""
    made = entry.get("made")
    bits, why = weight_bits(cpu_flags())
    return f"its weights have 8 bits, and {why}" if isinstance(made, dict) and made.get("weight_bits") == 8 > bits else ""


def _check_shapes(session: ort.InferenceSession, card: dict, path: os.PathLike) -> None:
    """Raises:
    Failure: a file takes other images, or answers for another number of classes, than its card says.
    """
    px, n = card["preprocessing"]["resolution_px"], len(card["classes"])
    found = {value.name: (value.type, value.shape[1:]) for value in (*session.get_inputs(), *session.get_outputs())}
    wanted = {"image": ("tensor(uint8)", [px, px, 3]), "probabilities": ("tensor(float)", [n])}
    for name, (kind, shape) in wanted.items():
        if found.get(name) != (kind, shape):
            there = "nothing of this name" if name not in found else f"{found[name][0]} [N, {', '.join(map(str, found[name][1]))}]"
            raise Failure(f"{path}: {name} should be {kind} [N, {', '.join(map(str, shape))}], as the card says, and is {there}; export the run anew")


def session_options(n_threads: int = 0) -> ort.SessionOptions:
    """Return options of a session that is quiet and takes no cores but its own.

    Args:
        n_threads: 0: the cores that this process owns.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = n_threads or n_cores()
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return options


def open_session(path: str, settings: Settings, profile: str | None = None) -> ort.InferenceSession:
    """Open an ONNX file as it is served.

    Args:
        profile: what the name of a file begins with that tells how long each node took and where it ran, when the session's profiling ends.

    Raises:
        UserError: there is no such provider.
        Failure: the file can't be opened.
    """
    options = session_options(settings.n_threads)
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # an idle server must not burn a core
    if profile is not None:
        options.enable_profiling, options.profile_file_prefix = True, profile
    return _open(path, options, _wanted_providers(settings.provider), path)


def open_on_cpu(model: str | bytes, options: ort.SessionOptions) -> ort.InferenceSession:
    """Open a file, or a model in the making, with options of its own.

    Raises:
        Failure: it can't be opened.
    """
    return _open(model, options, [PROVIDERS["cpu"]], model if isinstance(model, str) else "a model in the making")


def _open(model: str | bytes, options: ort.SessionOptions, providers: list[str], named: str) -> ort.InferenceSession:
    try:
        return ort.InferenceSession(model, options, providers=providers)
    except Exception as error:  # ONNX Runtime raises several kinds of its own
        raise Failure(f"{named}: ONNX Runtime can't open it: {first_line(error)}") from error


def _wanted_providers(name: str) -> list[str]:
    if name == "auto":
        # onnxruntime-gpu lists CUDA without a GPU; the session itself says what runs.
        return [
            p
            for p in ("CUDAExecutionProvider", "CPUExecutionProvider")
            if p in ort.get_available_providers() and (p[:3] == "CPU" or _has_gpu())
        ]
    if name not in PROVIDERS:
        raise unknown_name("provider", name, ["auto", *PROVIDERS])
    if PROVIDERS[name] not in ort.get_available_providers():
        raise UserError(f"the provider {name!r} is not in this ONNX Runtime; it has {', '.join(ort.get_available_providers())}")
    first = list(PROVIDERS).index(name)
    return list(PROVIDERS.values())[first::-1]  # what TensorRT leaves is for CUDA, and what that leaves for the processor


def _has_gpu() -> bool:
    return os.path.exists("/dev/nvidiactl")


def _running_provider(session: ort.InferenceSession) -> str:
    return _short(session.get_providers()[0])


def _short(provider: str) -> str:
    return next((short for short, name in PROVIDERS.items() if name == provider), provider)


def placement(bundle: Bundle, settings: Settings) -> dict[str, dict[str, int]]:
    """Return where the nodes of a bundle's graph run when it answers an image, and where its convolutions: {"nodes", "convolutions"}, by provider.

    A provider that runs may still leave nodes to the processor.
    """
    with tempfile.TemporaryDirectory() as folder:
        session = open_session(str(bundle.model_path(settings.scheme)), settings, f"{folder}/profile")
        px = bundle.preprocessing.resolution_px
        session.run(["probabilities"], {"image": np.zeros((1, px, px, 3), np.uint8)})
        with open(session.end_profiling(), encoding="utf-8") as file:
            events = json.load(file)
    nodes, convolutions = collections.Counter(), collections.Counter()
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            provider = _short(event["args"].get("provider", ""))
            nodes[provider] += 1
            convolutions[provider] += "Conv" in event["args"].get("op_name", "")
    return {"nodes": dict(nodes), "convolutions": {name: n for name, n in convolutions.items() if n}}


def run_unfused(path: os.PathLike, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return float32 probabilities [n, n_classes] and embeddings [n, d] of a file as it is written, without the runtime's graph optimizations."""
    options = session_options()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return run_both(open_on_cpu(str(path), options), images)


def run_both(session: ort.InferenceSession, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return float32 probabilities [n, n_classes] and embeddings [n, d]."""
    answers = [session.run(["probabilities", "embedding"], {"image": part}) for part in in_parts(images)]
    return tuple(np.concatenate(parts) for parts in zip(*answers, strict=True))


def part_size(px: int) -> int:
    """Return how many images of px x px hold the pixels of 16 at 224 px, at least 1: B7's activations of 16 at 600 px are 10 GB."""
    return max(1, min(16, 16 * 224**2 // px**2))


def in_parts(images: np.ndarray) -> Iterator[np.ndarray]:
    """Yield uint8 [n, px, px, 3] in parts whose activations fit into memory."""
    size = part_size(images.shape[1])
    for start in range(0, len(images), size):
        yield images[start : start + size]
