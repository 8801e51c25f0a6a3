"""Made-up findings of an evaluation: a tree, rows, and a model that errs near the truth; every figure follows from the rows."""

import io
from types import SimpleNamespace

import numpy as np
from PIL import Image

from family.evaluation.findings import SCHEMA, Findings
from family.reporting.words import counted

RULES = {
    "sibling mix-up": "Both categories lie directly in the same category above them.",
    "probably misfiled by the seller": "The answer has at least 70 %.",
    "the model's own mistake": "Everything else: the two categories are no neighbours.",
}
KINDS = tuple(RULES)
DEPARTMENTS = ("Electronics", "Home and garden", "Animals", "Transport", "Fashion", "Hobby", "Property", "Jobs", "Services", "Children")
THINGS = ("Laptops", "Desktops", "Tablets", "Phones", "Cameras", "Lamps", "Chairs", "Shelves", "Bicycles", "Coats", "Shoes", "Guitars")
WANTED = 0.9
N_ERRORS = 2_000


def made_findings(n_categories: int = 10, n_listings: int = 600, *, n_departments: int = 3, accuracy: float = 0.75, seed: int = 0):
    """Return findings over a tree of three levels; two photos a listing for every third listing."""
    rng = np.random.default_rng(seed)
    paths = _paths(n_categories, n_departments)
    weights = 1 / np.arange(1, n_categories + 1)
    truth = rng.choice(rng.permutation(n_categories), n_listings, p=weights / weights.sum())
    right, sure = rng.random(n_listings) < accuracy, rng.random(n_listings) ** 0.5
    near = np.clip(truth + rng.choice([-2, -1, 1, 2], n_listings), 0, n_categories - 1)
    answer = np.where(right, truth, np.where(rng.random(n_listings) < 0.7, near, rng.integers(0, n_categories, n_listings)))
    right = answer == truth
    sure = np.where(right, sure, sure * 0.8)
    world = SimpleNamespace(paths=paths, truth=truth, answer=answer, right=right, sure=sure, rng=rng)
    errors = [_error(world, row) for row in np.flatnonzero(~right)]
    right_rows = [_row(world, row) for row in np.flatnonzero(right)[:24]]
    pairs = _pairs(world, errors)
    about = {
        "member": "v2-b0-160-general-fp32", "dataset": "made-up", "digest": "5841cfb131be77aa", "split": "test", "scope": "general",
        "n_images": n_listings * 4 // 3, "n_listings": n_listings, "n_categories": n_categories, "depth": 3,
        "precision_wanted": WANTED, "schema": SCHEMA, "notes": [],
    }  # fmt: skip
    return Findings(
        about=about,
        metrics=_metrics(world, about) | {"errors": {"n": len(errors), "by_kind": _count(errors), "rules": RULES}},
        categories=_categories(world),
        pairs=pairs,
        errors=errors[:N_ERRORS],
        right=right_rows,
        actions=_actions(pairs, errors, len(truth)),
    )


def made_pictures(images, side_px: int = 128) -> dict[str, bytes]:
    """Return a picture for each image: a pattern that is a function of its name."""
    found = {}
    for k, image in enumerate(images):
        cells = np.random.default_rng(k).integers(0, 256, (6, 6, 3), np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(cells).resize((side_px, side_px * 3 // 4), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=80)
        found[image] = buffer.getvalue()
    return found


def made_comparison() -> dict:
    """Return a comparison in which one difference is shown, one is not, and one is of nothing."""
    rows = [("top1.micro", 0.75, 0.72, (0.012, 0.047), True), ("top1.macro", 0.69, 0.70, (-0.03, 0.012), False)]
    rows.append(("levels.1.summed.micro", 0.9, 0.9, (0.0, 0.0), False))
    return {
        "other": "lite0-160-general-int8",
        "differences": [
            {"metric": name, "ours": a, "other": b, "difference": a - b, "interval": list(ends), "shown": shown}
            for name, a, b, ends, shown in rows
        ],
    }  # fmt: skip


def _paths(n_categories: int, n_departments: int) -> list[str]:
    """Return leaves' paths, sorted: departments, groups of about five, leaves."""
    found = []
    for k in range(n_categories):
        department = k * n_departments // n_categories
        name = DEPARTMENTS[department % len(DEPARTMENTS)] + (
            f" {department // len(DEPARTMENTS) + 1}" if department >= len(DEPARTMENTS) else ""
        )
        found.append(f"{name}/{THINGS[k // 5 % len(THINGS)]} and parts {k // 5}/{THINGS[k % len(THINGS)]} no. {k}")
    return found


def _row(world, row: int) -> dict:
    paths, sure = world.paths, float(world.sure[row])
    others = [int(k) for k in (world.truth[row], *world.rng.integers(0, len(paths), 6)) if k != world.answer[row]]
    top = [int(world.answer[row]), *dict.fromkeys(others)][:5]
    shares = [sure, *(min(1 - sure, sure) * 0.5 ** (k + 1) for k in range(len(top) - 1))]
    truth = int(world.truth[row])
    return {
        "listing_id": f"L{row:06d}", "image": f"images/00/{row:064x}.jpg", "true_id": f"c{truth}", "true_path": paths[truth],
        "answer_id": f"c{top[0]}", "answer_path": paths[top[0]], "probability": sure,
        "true_probability": dict(zip(top, shares, strict=True)).get(truth, 0.0),
        "top": [{"path": paths[k], "probability": share} for k, share in zip(top, shares, strict=True)],
    }  # fmt: skip


def _error(world, row: int) -> dict:
    found = _row(world, row)
    siblings = found["true_path"].rpartition("/")[0] == found["answer_path"].rpartition("/")[0]
    misfiled = found["probability"] >= 0.7
    kind = KINDS[0] if siblings else KINDS[1] if misfiled else KINDS[2]
    why = f"the answer has {100 * found['probability']:.1f} %, the seller's category {100 * found['true_probability']:.1f} %"
    return {**found, "kind": kind, "why": why}


def _pairs(world, errors: list[dict]) -> list[dict]:
    """Return the thirty most confused pairs of categories."""
    found: dict[tuple[int, int], list[dict]] = {}
    for row in errors:
        ends = sorted(int(row[key][1:]) for key in ("true_id", "answer_id"))
        found.setdefault((ends[0], ends[1]), []).append(row)
    worst = sorted(found.items(), key=lambda item: -len(item[1]))[:30]
    pairs = []
    for (a, b), rows in worst:
        first, second = ([row for row in rows if row["true_id"] == f"c{k}"] for k in (a, b))
        ends = [{"id": f"c{k}", "path": world.paths[k]} for k in (a, b)]
        shared = [x for x, y in zip(world.paths[a].split("/"), world.paths[b].split("/"), strict=True) if x == y]
        n_a, n_b = (int((world.truth == k).sum()) for k in (a, b))
        counts = {"n_ab": len(first), "n_ba": len(second), "n_a": n_a, "n_b": n_b}
        pairs.append({"a": ends[0], "b": ends[1], **counts, "lca_path": "/".join(shared), "examples": [*first[:4], *second[:4]]})
    return pairs


def _actions(pairs: list[dict], errors: list[dict], n: int) -> list[dict]:
    actions = []
    for rank, pair in enumerate(pairs[:10], 1):
        kind = ("merge", "rename", "relabel")[(rank - 1) % 3]
        ends = [pair["a"], pair["b"]][: 1 if kind == "relabel" else 2]
        examples = [row for row in pair["examples"] if kind == "merge" or row["true_id"] == pair["a"]["id"]] or pair["examples"]
        found = pair["n_ab"] + pair["n_ba"] if kind == "merge" else max(pair["n_ab"], 1)
        why = {
            "merge": f"{found:,} of {pair['n_a'] + pair['n_b']:,} photos of the two are taken for the other one.",
            "rename": f"{found:,} photos are taken for the neighbour, hardly any the other way round: a name that says more would help.",
            "relabel": f"{counted(found, 'listing')} look like something else, most often {pair['b']['path']}.",
        }[kind]
        gain = None if kind == "rename" else 100 * found / n
        actions.append(
            {
                "rank": rank, "kind": kind, "categories": ends, "listings": found, "why": why, "gain_points": gain,
                "examples": examples[:6],
            }
        )  # fmt: skip
    return actions


def _categories(world) -> list[dict]:
    found, n = [], len(world.paths)
    n_train = (5 * np.bincount(world.truth, minlength=n) + 3).tolist()
    order = np.argsort(np.argsort([-k for k in n_train], kind="stable"), kind="stable")
    of_truth = [np.flatnonzero(rows) for rows in (world.truth[None] == np.arange(n)[:, None])]
    of_answer = [np.flatnonzero(rows) for rows in (world.answer[None] == np.arange(n)[:, None])]
    for k, path in enumerate(world.paths):
        mine, answered = of_truth[k], of_answer[k]
        recall = float(world.right[mine].mean()) if len(mine) else None
        precision = float(world.right[answered].mean()) if len(answered) else None
        wrong = world.answer[mine][~world.right[mine]]
        worst = int(np.bincount(wrong).argmax()) if len(wrong) else None
        f1 = 2 * recall * precision / (recall + precision) if recall and precision else None if recall is None else 0.0
        found.append(
            {
                "id": f"c{k}", "path": path, "train_rows": n_train[k], "third": ("head", "middle", "tail")[int(3 * order[k] // n)],
                "support": len(mine), "listings": len(mine), "precision": precision, "recall": recall, "f1": f1,
                "threshold": 0.62 if len(mine) else None, "share_filed": float((world.sure[mine] > 0.62).mean()) if len(mine) else None,
                "worst": None if worst is None else {"id": f"c{worst}", "path": world.paths[worst], "n": int((wrong == worst).sum())},
            }
        )  # fmt: skip
    return sorted(found, key=lambda c: (c["recall"] is None, c["recall"]))


def _metrics(world, about: dict) -> dict:
    n = len(world.truth)
    tops = {f"top{k}": _shares(min(0.99, world.right.mean() + more)) for k, more in ((1, 0.0), (3, 0.11), (5, 0.15))}
    levels = {}
    for level in (1, 2, 3):
        names, node_of = np.unique(["/".join(path.split("/")[:level]) for path in world.paths], return_inverse=True)
        share = float((node_of[world.truth] == node_of[world.answer]).mean())
        levels[str(level)] = {"nodes": len(names), **_shares(share), "summed": _shares(min(1.0, share + 0.01))}
    names, node_of = np.unique([path.split("/")[0] for path in world.paths], return_inverse=True)
    matrix = np.zeros((len(names), len(names)), int)
    np.add.at(matrix, (node_of[world.truth], node_of[world.answer]), 1)
    thirds = {name: {"categories": len(world.paths) // 3, "n": n // 3, "micro": 0.8 - gap, "macro": 0.78 - gap} for name, gap in _gaps()}
    return {
        "n": about["n_images"], "n_listings": n, **tops, "levels": levels,
        "macro_over": {"categories": len(set(world.truth.tolist())), "under_5_rows": int((np.bincount(world.truth) < 5).sum())},
        "hierarchical": {"precision": 0.88, "recall": 0.87, "f1": 0.875}, "severity": {"of_mistakes": 1.42, "of_rows": 0.35},
        "distance_at": {"1": 0.35, "3": 0.9, "5": 1.2}, "thirds": thirds, "calibration": _calibration(world), "filing": _filing(world, levels),
        "listings": {**{k: dict(v) for k, v in tops.items()}, "levels": {k: dict(v) for k, v in levels.items()}},
        "confusion": {"level": 1, "ids": names.tolist(), "matrix": matrix.tolist()},
    }  # fmt: skip


def _count(errors: list[dict]) -> dict[str, int]:
    counts = {kind: sum(row["kind"] == kind for row in errors) for kind in KINDS}
    return {kind: n for kind, n in counts.items() if n}


def _gaps() -> list[tuple[str, float]]:
    return [("head", 0.0), ("middle", 0.1), ("tail", 0.25)]


def _shares(share: float) -> dict:
    share = float(share)
    near = [max(0.0, share - 0.02), min(1.0, share + 0.02)]
    return {
        "micro": share,
        "macro": max(0.0, share - 0.06),
        "micro_interval": near,
        "macro_interval": [max(0.0, end - 0.07) for end in near],
    }


def _calibration(world) -> dict:
    bins = []
    for low in np.arange(0, 1, 0.1):
        mine = (world.sure >= low) & (world.sure < low + 0.1)
        confidence, accuracy = (float(x[mine].mean()) if mine.any() else None for x in (world.sure, world.right))
        bins.append({"low": float(low), "high": float(low + 0.1), "n": int(mine.sum()), "confidence": confidence, "accuracy": accuracy})
    n = len(world.sure)
    ece = sum(b["n"] / n * abs(b["confidence"] - b["accuracy"]) for b in bins if b["n"])
    found = {"ece": ece, "nll": 0.91, "bins": bins}
    return {"temperature": 1.13, "fitted_on": "val", **found, "ece_interval": [0.9 * ece, 1.1 * ece], "after": found}


def _filing(world, levels: dict) -> dict:
    curve = []
    for threshold in np.linspace(0, 0.99, 100):
        filed = world.sure >= threshold
        precision = float(world.right[filed].mean()) if filed.any() else None
        curve.append({"threshold": float(threshold), "share": float(filed.mean()), "precision": precision})
    threshold = next((point["threshold"] for point in curve if (point["precision"] or 0) >= WANTED), 0.99)
    filed = world.sure >= threshold
    names, node_of = np.unique([path.split("/")[0] for path in world.paths], return_inverse=True)
    departments = []
    for k, name in enumerate(names.tolist()):
        mine = node_of[world.truth] == k
        held = filed & mine
        if mine.any():
            departments.append(
                {
                    "id": f"d{k}", "path": name, "n_listings": int(mine.sum()), "share_leaf": float(filed[mine].mean()),
                    "share_backoff": float(min(1.0, filed[mine].mean() + 0.15)),
                    "share_leaf_interval": _interval(filed[mine]), "interval": _interval(world.right[held]),
                    "precision_leaf": float(world.right[held].mean()) if held.any() else None,
                }
            )  # fmt: skip
    by_depth = [{"level": int(level), "share": 0.2 + 0.1 * int(level), "precision": 0.91} for level in levels]
    return {
        "precision_wanted": WANTED, "fitted_on": "val",
        "levels": {k: {"share": 0.95 - 0.1 * int(k), "precision": 0.91, "interval": [0.88, 0.93]} for k in levels},
        "leaf": {"share": float(filed.mean()), "share_interval": _interval(filed), "precision": float(world.right[filed].mean()) if filed.any() else None,
                 "interval": _interval(world.right[filed])},
        "backoff": {"share": 0.82, "precision": 0.912, "interval": [0.88, 0.93], "mean_depth": 2.31, "by_depth": by_depth, "without_answer": 0.18},
        "curve": curve, "departments": sorted(departments, key=lambda d: d["share_leaf"]),
    }  # fmt: skip


def _interval(hits: np.ndarray) -> list[float]:
    """Return a rough 95 % interval of a share, from 0 to 1 where there is nothing."""
    half = 1 / max(1, len(hits)) ** 0.5
    share = float(hits.mean()) if len(hits) else 0.5
    return [max(0.0, share - half), min(1.0, share + half)]
