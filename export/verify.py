"""Proofs that an export gives the same answers: parity with its source, and the accuracy gate of a scheme. No TensorFlow."""

import numpy as np

from family.evaluation.paired import MIN_DIFFERING, count_differing, macro_intervals, micro_interval

MAX_DP = 1e-5  # of the graph as it is written
# Of the same graph with ONNX Runtime's fusions: its fused x * sigmoid(x) is an approximation. On a B0 trained from scratch and hostile
# images, max |dp| is 9e-7 unfused, 1.5e-5 fused; with the sigmoid written as 1 / (1 + exp(-x)), which is not fused, 9e-7 again.
MAX_DP_FUSED = 1e-4
MOST_ROWS = 1_000_000  # that anybody would label to decide


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


def gate(
    reference: np.ndarray, scheme: np.ndarray, labels: np.ndarray, max_drop_points: float, levels: list[tuple[np.ndarray, int]], listings: np.ndarray
) -> dict:  # fmt: skip
    """Judge a scheme by its loss of accuracy against fp32 on the same rows, micro and macro, at every level of the tree.

    A figure surely falls when its interval lies above what may be lost, and, of a macro figure, whose interval is too narrow where categories
    have one or two listings, when at least MIN_DIFFERING listings differ. One that surely falls is enough for `fail`. Intervals are those of
    `family.evaluation.paired`, with listings as the unit, each for itself: of a scheme that loses just what it may, more than one in forty fails.

    Args:
        reference, scheme: float32 [n, n_classes] probabilities.
        labels: int [n], classes.
        max_drop_points: percentage points that each figure may lose.
        levels: of `level_maps`: (node of each class, number of nodes) of each level; the last one's nodes are the classes.
        listings: int [n], from 0 on.

    Returns:
        `drop_points` and its `interval` of top-1, micro; the same of each figure in `levels`; `verdict`: `fail`, `pass` when no figure drops by more
        than it may, else `undecided` with `needs_rows` that would decide; `decided_by`, the figure with the worst loss, where it did not pass.
    """
    answers, base = scheme.argmax(1), reference.argmax(1)
    lost = {k: (node_of[base] == node_of[labels]).astype(int) - (node_of[answers] == node_of[labels]) for k, (node_of, _) in enumerate(levels, 1)}
    truth = {k: node_of[labels] for k, (node_of, _) in enumerate(levels, 1)}
    macro = macro_intervals(lost, truth, lambda key: key, listings)
    figures, found = {}, {}
    for k, d in lost.items():
        of_nodes = np.bincount(truth[k], d) / np.maximum(np.bincount(truth[k]), 1)
        present = np.bincount(truth[k]) > 0
        found[str(k)] = {"micro": _loss(d.mean(), micro_interval(d, listings)), "macro": _loss(of_nodes[present].mean(), macro[k])}
        is_enough = count_differing(d, listings) >= MIN_DIFFERING
        figures |= {f"levels.{k}.{kind}": (one, kind == "micro" or is_enough) for kind, one in found[str(k)].items()}
    worst = max(figures, key=lambda name: figures[name][0]["drop_points"])
    surely = [name for name, (one, is_enough) in figures.items() if one["interval"][0] > max_drop_points and is_enough]
    too_much = [one for one, _ in figures.values() if one["drop_points"] > max_drop_points]
    verdict = "fail" if surely else "undecided" if too_much else "pass"
    told = {"n": len(labels), **found[str(len(levels))]["micro"], "agreement": float((base == answers).mean()), "verdict": verdict, "levels": found}
    if verdict != "pass":
        told["decided_by"] = max(surely, key=lambda name: figures[name][0]["drop_points"]) if surely else worst
    if verdict == "undecided":
        told["needs_rows"] = max(_rows_to_decide(one, len(labels), max_drop_points) for one in too_much)
    return told


def is_refused(found: dict, strict: bool) -> bool:
    """Say whether a scheme of this verdict is not written; strictly, neither is one that is undecided."""
    return found["verdict"] == "fail" or (strict and found["verdict"] != "pass")


def tell_verdict(found: dict) -> str:
    """Say a verdict of `gate`, and what decided."""
    if found["verdict"] == "pass":
        return "pass"
    _, level, kind = found["decided_by"].split(".")
    one = found["levels"][level][kind]
    told = f"{found['verdict']}: level {level}, {kind}, loses {one['drop_points']:.2f} points ({one['interval'][0]:+.2f} to {one['interval'][1]:+.2f})"
    if "needs_rows" not in found:
        return told
    if found["needs_rows"] > MOST_ROWS:
        return f"{told}: too near what may be lost for validation images to decide"
    return f"{told}; about {found['needs_rows']:,} validation images would decide"


def _loss(drop: float, interval: tuple[float, float]) -> dict:
    return {"drop_points": float(100 * drop), "interval": [100 * end for end in interval]}


def _rows_to_decide(loss: dict, n: int, max_drop_points: float) -> int:
    """Return how many rows make the interval of this loss end at what may be lost: it narrows with their square root."""
    half = (loss["interval"][1] - loss["interval"][0]) / 2
    return int(np.ceil(n * (half / (loss["drop_points"] - max_drop_points)) ** 2))
