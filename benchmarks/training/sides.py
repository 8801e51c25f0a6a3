"""The sides of `family bench train`: ours, Keras' `fit`, and peers, a row each. Nothing of them is loaded here."""

import importlib.metadata
import os
from collections.abc import Iterable
from dataclasses import dataclass

from family.errors import UserError

OURS, ONE_BATCH, KERAS_FIT = "ours", "ours_on_one_batch", "keras_fit"


@dataclass(frozen=True)
class Peer:
    """A framework with its own implementation of some variants."""

    name: str  # of its side, and in measurements
    title: str
    side: str  # module:class, made with (variant, rows, recipe); it has `time_steps(n) -> seconds` and `conditions`
    packages: tuple[str, ...]  # of the extra `peers`
    variants: tuple[str, ...]


_ROWS = (
    Peer("pytorch", "PyTorch", "benchmarks.training.pytorch:PyTorch", ("torch", "efficientnet_pytorch"), tuple(f"b{size}" for size in range(8))),
)
PEERS = {row.name: row for row in _ROWS}
TITLES = {OURS: "ours", ONE_BATCH: "ours on one batch", KERAS_FIT: "Keras fit", **{row.name: row.title for row in _ROWS}}


def usable_peers(variant: str, gpu: str | None) -> list[Peer]:
    """Return all peers, where they can be timed.

    Args:
        gpu: of this machine.

    Raises:
        UserError: a package is not installed, a peer has no such variant, or TensorFlow would use a GPU, for which peers are not set up.
    """
    check_installed(package for row in _ROWS for package in row.packages)
    for row in _ROWS:
        if variant not in row.variants:
            raise UserError(f"--peers: {row.packages[-1]} has no {variant}; it has {', '.join(row.variants)}")
    if gpu and os.environ.get("CUDA_VISIBLE_DEVICES") not in ("", "-1"):
        raise UserError(f"--peers compares trainings on the CPU, and this machine has a {gpu}; hide it with CUDA_VISIBLE_DEVICES=-1")
    return list(_ROWS)


def check_installed(packages: Iterable[str]) -> None:
    """Refuse peers whose packages are not all installed.

    Raises:
        UserError: names what is missing.
    """
    missing = [package for package in dict.fromkeys(packages) if not _is_there(package)]
    if missing:
        raise UserError(f"--peers needs {' and '.join(missing)}, not installed here; pip install '.[peers]' adds what peers need")


def versions(peer) -> dict[str, str]:
    """Return the versions of the `packages` of a peer."""
    return {package: importlib.metadata.version(package) for package in peer.packages}


def is_installed(peer) -> bool:
    """Say whether the `packages` of a peer are all installed."""
    return all(map(_is_there, peer.packages))


def _is_there(package: str) -> bool:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
