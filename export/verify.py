"""Proofs that an export gives the same answers: parity with its source, and the accuracy gate of a scheme. No TensorFlow."""

import bisect
import io
import math

import numpy as np
from PIL import Image

from family.evaluation.paired import MIN_DIFFERING, MOST_ROWS, Z_95, count_differing, macro_bound, macro_intervals, micro_interval
from family.evaluation.predictions import node_sums

MAX_DP, MAX_DE = 1e-5, 1e-4  # of the graph as it is written: of a probability, and of an embedding, as a share of its largest value
# So many times as far with ONNX Runtime's fusions: its fused x * sigmoid(x) is an approximation. On a B0 trained from scratch and hostile
# images, max |dp| is 9e-7 unfused, 1.5e-5 fused; with the sigmoid written as 1 / (1 + exp(-x)), which is not fused, 9e-7 again.
FUSED = 10
MAX_DP_FUSED = FUSED * MAX_DP
ROOM = 0.9  # of what may be lost, that the interval of a scheme may take that loses nothing: rows are drawn, and some differ
Answers = tuple[np.ndarray, np.ndarray]  # probabilities [n, n_classes], embeddings [n, d]


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


def hostile_files() -> list[bytes]:
    """Return encoded images of extreme sizes and kinds: one pixel, lines, grey of 16 bits, a palette with a transparent colour, CMYK."""
    noise = np.random.default_rng(1).integers(0, 256, (1000, 3), np.uint8)
    made = [(Image.fromarray(noise[None, :1]), "PNG"), (Image.fromarray(noise[None]), "PNG"), (Image.fromarray(noise[:, None]), "JPEG"),
            (Image.fromarray(noise[:, :1].astype(np.uint16) * 257), "PNG"), (Image.fromarray(noise[None]).convert("CMYK"), "JPEG"),
            (Image.fromarray(noise[:30].reshape(10, 3, 3)).convert("P"), "GIF")]  # fmt: skip
    files = []
    for image, kind in made:
        buffer = io.BytesIO()
        image.save(buffer, kind, **({"transparency": 0} if kind == "GIF" else {}))
        files.append(buffer.getvalue())
    return files


def parity(source: np.ndarray, exported: np.ndarray) -> dict:
    """Compare float32 [n, n_classes] probabilities of the same images.

    Returns:
        {"n", "max_dp", "agreement"}; agreement is the share of rows with the same best class.
    """
    same = source.argmax(axis=1) == exported.argmax(axis=1)
    return {"n": len(source), "max_dp": float(np.abs(source - exported).max()), "agreement": float(same.mean())}


def differences(source: Answers, exported: Answers) -> tuple[np.ndarray, np.ndarray]:
    """Return how far the two answers of each image lie apart, [n] each: probabilities, and embeddings as a share of the largest value of the image's own in
    `source`, or of the median image's where that is larger."""
    sizes = np.abs(source[1]).max(axis=1)
    shares = np.abs(source[1] - exported[1]).max(axis=1) / np.maximum(np.maximum(sizes, np.median(sizes)), np.finfo(np.float32).tiny)
    return np.abs(source[0] - exported[0]).max(axis=1), shares


def compare(source: Answers, exported: Answers) -> dict:
    """Compare both outputs of the same images. Where probabilities hardly differ from image to image, as those of a model that learned little, a wrong graph
    shows in embeddings alone.

    Returns:
        {"n", "max_dp", "max_de", "agreement"}; `max_de` is the largest share of `differences`.
    """
    return {**parity(source[0], exported[0]), "max_de": float(differences(source, exported)[1].max())}


def embedding_cosine(source: np.ndarray, scheme: np.ndarray) -> dict:
    """Compare embeddings [n, d] of the same images as a search does: by the cosine between the two of each image.

    Returns:
        {"n", "median", "least"}
    """
    source, scheme = source.astype(float), scheme.astype(float)
    sizes = np.linalg.norm(source, axis=1) * np.linalg.norm(scheme, axis=1)
    found = (source * scheme).sum(axis=1) / np.maximum(sizes, np.finfo(float).tiny)
    return {"n": len(found), "median": float(np.median(found)), "least": float(found.min())}


def parity_holds(found: dict, times: float = 1) -> bool:
    """Say whether an fp32 export may be called the same model, where it may lie so many times as far from it."""
    # Not `found > MAX_DP`: a NaN must fail.
    return found["max_dp"] <= times * MAX_DP and found.get("max_de", 0.0) <= times * MAX_DE and found["agreement"] == 1.0


def gate(
    reference: np.ndarray, scheme: np.ndarray, labels: np.ndarray, max_drop_points: float, levels: list[tuple[np.ndarray, int]], listings: np.ndarray
) -> dict:  # fmt: skip
    """Judge a scheme by its loss of accuracy against fp32 on the same rows, micro and macro, at every level of the tree: of the node of the best leaf, and
    of the node with the largest sum over its leaves, which is what is answered there.

    A figure surely stays when its interval ends within what may be lost, and surely falls when it begins beyond. Intervals are those of
    `family.evaluation.paired`, with listings as the unit, each for itself: of a scheme that loses just what it may, more than one in forty fails. That of a
    macro figure is too narrow where categories have one or two listings: it falls only when at least MIN_DIFFERING listings differ, and ends no sooner than
    `macro_bound`, which makes room in each category for what two rows would say.

    Args:
        reference, scheme: float32 [n, n_classes] probabilities.
        labels: int [n], classes.
        max_drop_points: percentage points that each figure may lose.
        levels: of `level_maps`: (node of each class, number of nodes) of each level; the last one's nodes are the classes.
        listings: int [n], from 0 on.

    Returns:
        `drop_points` and its `interval` of top-1, micro; the same of each figure in `levels`, laid out as in the figures of `family evaluate`; `verdict`:
        `fail` when one surely falls, `pass` when all surely stay, else `undecided` with `needs_rows` that would decide; `decided_by`, the figure that
        decided, where it did not pass.
    """
    answers, base = scheme.argmax(1), reference.argmax(1)
    lost, truth, found, figures = {}, {}, {}, {}
    for k, (node_of, n_nodes) in enumerate(levels, 1):
        truth[k] = node_of[labels]
        summed = [node_sums(p, node_of, n_nodes).argmax(1) for p in (reference, scheme)]
        for kind, (before, after) in (("", (node_of[base], node_of[answers])), (".summed", summed)):
            lost[k, kind] = (before == truth[k]).astype(int) - (after == truth[k])
    same = {key: (key[0], "") if np.array_equal(d, lost[key[0], ""]) else key for key, d in lost.items()}  # drawn once
    macro = macro_intervals({key: lost[key] for key in set(same.values())}, truth, lambda key: key[0], listings)
    for (k, kind), d in lost.items():
        counts = np.bincount(truth[k])
        means = (np.bincount(truth[k], d) / np.maximum(counts, 1))[counts > 0]
        low, high = macro[same[k, kind]]
        both = {"micro": _loss(d.mean(), micro_interval(d, listings)), "macro": _loss(means.mean(), (low, max(high, macro_bound(d, truth[k], listings))))}
        found.setdefault(str(k), {}).update({"summed": both} if kind else both)
        sizes = {"micro": np.array([len(d)]), "macro": counts[counts > 0]}
        n_differing = {"micro": MIN_DIFFERING, "macro": count_differing(d, listings)}
        figures |= {f"levels.{k}{kind}.{one}": (both[one], n_differing[one], _least_half(sizes[one])) for one in both}
    falls = {name: one for name, (one, n, _) in figures.items() if one["interval"][0] > max_drop_points and n >= MIN_DIFFERING}
    opened = {name: one for name, (one, *_) in figures.items() if one["interval"][1] > max_drop_points}
    verdict = "fail" if falls else "undecided" if opened else "pass"
    told = {"n": len(labels), **found[str(len(levels))]["micro"], "agreement": float((base == answers).mean()), "verdict": verdict, "levels": found}
    if falls:
        told["decided_by"] = max(falls, key=lambda name: falls[name]["drop_points"])
    elif opened:
        needed = {name: _rows_to_decide(*figures[name], len(labels), max_drop_points) for name in opened}
        told["decided_by"] = max(needed, key=needed.get)
        told["needs_rows"] = needed[told["decided_by"]]
    return told


def is_refused(found: dict, strict: bool) -> bool:
    """Say whether a scheme of this verdict is not written; strictly, neither is one that is undecided."""
    return found["verdict"] == "fail" or (strict and found["verdict"] != "pass")


def tell_verdict(found: dict) -> str:
    """Say a verdict of `gate`, and what decided."""
    if found["verdict"] == "pass":
        return "pass"
    _, level, *summed, kind = found["decided_by"].split(".")
    one = found["levels"][level]["summed" if summed else kind]
    one = one[kind] if summed else one
    what = f"level {level}, {'summed, ' if summed else ''}{kind}"
    told = f"{found['verdict']}: {what}, loses {one['drop_points']:.2f} points ({one['interval'][0]:+.2f} to {one['interval'][1]:+.2f})"
    if "needs_rows" not in found:
        return told
    if found["needs_rows"] > MOST_ROWS:
        return f"{told}: too near what may be lost for validation images to decide"
    told += f"; judged on {found['n']:,} validation images, about {found['needs_rows']:,} would decide"
    return f"{told}: --judge-on {found['needs_rows']}" if found["needs_rows"] <= found.get("n_there", 0) else told


def _loss(drop: float, interval: tuple[float, float]) -> dict:
    return {"drop_points": float(100 * drop), "interval": [100 * end for end in interval]}


def _least_half(sizes: np.ndarray) -> float:
    """Return half the interval, in points, of categories of so many rows where none differs."""
    return 100 * Z_95 * float(np.sqrt((1 / (sizes + 2.0) ** 2).sum())) / len(sizes)


def n_to_pass(labels: np.ndarray, max_drop_points: float) -> int | None:
    """Return about how many rows of the same categories a scheme passes on whose answers are fp32's; None where all of these are too few.

    Args:
        labels: int [n], classes.
    """
    counts = np.bincount(labels)
    counts = counts[counts > 0]

    def passes(n: int) -> bool:
        return _least_half(counts * (n / len(labels))) <= ROOM * max_drop_points

    return bisect.bisect_left(range(len(labels)), True, key=passes) if passes(len(labels)) else None


def _rows_to_decide(loss: dict, n_differing: int, least_half: float, n: int, max_drop_points: float) -> int:
    """Return about how many rows make the interval of this loss end, or begin, at what may be lost.

    Its half narrows with the square root of their number, but for the part that it has where none differs, which narrows with their number: with r the
    rows that there are over those that decide, what may be lost less the loss is the root of spread^2 r + least_half^2 r^2.
    """
    drop, (low, high) = loss["drop_points"], loss["interval"]
    if low > max_drop_points:  # and too few listings differ
        return math.ceil(n * MIN_DIFFERING / max(n_differing, 1))
    away = max(abs(drop - max_drop_points), 1e-4)
    half = max(high - drop if drop <= max_drop_points else drop - low, 1e-9)
    least = min(least_half, half)
    spread = half**2 - least**2
    r = 2 * away**2 / (spread + math.sqrt(spread**2 + 4 * least**2 * away**2))
    return max(n + 1, math.ceil(n / r))
