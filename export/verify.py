"""Proofs that an export gives the same answers: parity with its source, and the accuracy gate of a scheme. No TensorFlow."""

import numpy as np

MAX_DP = 1e-5  # of the graph as it is written
# Of the same graph with ONNX Runtime's fusions: its fused x * sigmoid(x) is an approximation. On a B0 trained from scratch and hostile
# images, max |dp| is 9e-7 unfused, 1.5e-5 fused; with the sigmoid written as 1 / (1 + exp(-x)), which is not fused, 9e-7 again.
MAX_DP_FUSED = 1e-4
Z_95 = 1.96


def hostile_images(px: int, seed: int = 0) -> np.ndarray:
    """Return uint8 [n, px, px, 3] that no photo is: constants, noise, single channels, a checkerboard, a lone bright border."""
    rng = np.random.default_rng(seed)
    images = [np.full((px, px, 3), value, np.uint8) for value in (0, 1, 114, 127, 254, 255)]
    images += [rng.integers(0, 256, (px, px, 3), np.uint8) for _ in range(2)]
    for channel in range(3):
        image = np.zeros((px, px, 3), np.uint8)
        image[..., channel] = 255
        images.append(image)
    images.append(np.repeat((np.indices((px, px)).sum(0) % 2 * 255).astype(np.uint8)[..., None], 3, axis=2))
    border = np.zeros((px, px, 3), np.uint8)
    border[[0, -1]] = border[:, [0, -1]] = 255
    return np.stack([*images, border])


def parity(source: np.ndarray, exported: np.ndarray) -> dict:
    """Compare float32 [n, n_classes] probabilities of the same images.

    Returns:
        {"n", "max_dp", "agreement"}; agreement is the share of rows with the same best class.
    """
    same = source.argmax(axis=1) == exported.argmax(axis=1)
    return {"n": len(source), "max_dp": float(np.abs(source - exported).max()), "agreement": float(same.mean())}


def parity_holds(found: dict, max_dp: float = MAX_DP) -> bool:
    """Say whether an fp32 export may be called the same model."""
    # Not `found > max_dp`: a NaN must fail.
    return found["max_dp"] <= max_dp and found["agreement"] == 1.0


def gate(reference: np.ndarray, scheme: np.ndarray, labels: np.ndarray, max_drop_points: float) -> dict:
    """Judge a scheme by its loss of top-1 accuracy against fp32 on the same rows.

    Args:
        reference, scheme: float32 [n, n_classes] probabilities.
        max_drop_points: percentage points that may be lost.

    Returns:
        The drop in points with its paired 95 % interval and the verdict: `fail` when the interval lies above what may be lost,
        `pass` when the drop lies below it, else `undecided` with the rows that would decide.
    """
    lost = (reference.argmax(1) == labels).astype(float) - (scheme.argmax(1) == labels)
    drop, deviation = 100 * lost.mean(), 100 * lost.std()
    half = Z_95 * deviation / np.sqrt(len(lost))
    verdict = "fail" if drop - half > max_drop_points else "pass" if drop <= max_drop_points else "undecided"
    found = {"n": len(labels), "drop_points": float(drop), "interval": [float(drop - half), float(drop + half)],
             "agreement": float((reference.argmax(1) == scheme.argmax(1)).mean()), "verdict": verdict}  # fmt: skip
    if verdict == "undecided":
        found["needs_rows"] = int(np.ceil((Z_95 * deviation / (drop - max_drop_points)) ** 2))
    return found
