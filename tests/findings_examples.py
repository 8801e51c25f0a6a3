"""Small made-up findings, with every field that an evaluation writes."""

from family.evaluation.findings import SCHEMA, Findings

PATHS = {"cat": "Animals/Cats", "dog": "Animals/Dogs", "van": "Transport/Vans"}


def small_findings() -> Findings:
    """Return the findings of 40 images of 30 listings in three categories."""
    about = {"member": "b0-32-general-fp32", "dataset": "made-up", "digest": "0" * 64, "split": "test", "scope": "general", "n_images": 40,
             "n_listings": 30, "n_categories": 3, "depth": 2, "precision_wanted": 0.9, "schema": SCHEMA, "notes": []}  # fmt: skip
    error = {
        **_row("cat", "dog", 0.95),
        "kind": "probably misfiled by the seller",
        "why": "The answer has 95 %, the seller's category 3 %.",
    }
    pair = {
        "a": _category("cat"),
        "b": _category("dog"),
        "n_ab": 6,
        "n_ba": 2,
        "n_a": 14,
        "n_b": 16,
        "lca_path": "Animals",
        "examples": [error],
    }
    action = {"rank": 1, "kind": "merge", "categories": [_category("cat"), _category("dog")], "listings": 6,
              "why": "8 of 30 photos of the two are taken for the other one.", "gain_points": 20.0, "examples": [error]}  # fmt: skip
    right = [_row("van", "van", 0.99), _row("dog", "dog", 0.4)]
    return Findings(
        about, _metrics(), [_line(key, n) for key, n in (("cat", 14), ("dog", 16), ("van", 10))], [pair], [error], right, [action]
    )


def _category(key: str) -> dict:
    return {"id": key, "path": PATHS[key]}


def _row(true: str, answer: str, probability: float) -> dict:
    others = [key for key in PATHS if key != answer]
    shares = {answer: probability, **{key: (1 - probability) / len(others) for key in others}}
    return {"listing_id": f"l-{true}-{answer}", "image": f"images/aa/{true}-{answer}.jpg", "true_id": true, "true_path": PATHS[true],
            "answer_id": answer, "answer_path": PATHS[answer], "probability": probability, "true_probability": shares[true],
            "top": [{"path": PATHS[key], "probability": share} for key, share in shares.items()]}  # fmt: skip


def _shares(micro: float, macro: float) -> dict:
    return {
        "micro": micro,
        "macro": macro,
        "micro_interval": [micro - 0.1, min(1, micro + 0.08)],
        "macro_interval": [macro - 0.12, min(1, macro + 0.1)],
    }


def _headline() -> dict:
    levels = {
        "1": {"nodes": 2, **_shares(0.95, 0.95), "summed": _shares(0.95, 0.95)},
        "2": {"nodes": 3, **_shares(0.8, 0.8), "summed": _shares(0.8, 0.8)},
    }
    return {"top1": _shares(0.8, 0.8), "top3": _shares(1, 1), "top5": _shares(1, 1), "levels": levels}


def _metrics() -> dict:
    bins = [{"low": k / 10, "high": (k + 1) / 10, "n": 4, "confidence": (k + 0.5) / 10, "accuracy": k / 9} for k in range(10)]
    thirds = {name: {"categories": 1, "n": n, **_shares(0.8, 0.8)} for name, n in (("head", 16), ("middle", 14), ("tail", 10))}
    departments = [{"id": name, "path": name, "n_listings": n, "share_leaf": 0.5, "share_backoff": 0.7, "precision_leaf": 0.92}
                   for name, n in (("Animals", 20), ("Transport", 10))]  # fmt: skip
    levels = {"1": {"share": 0.7, "precision": 0.95, "share_interval": [0.5, 0.8], "interval": [0.8, 0.99]},
              "2": {"share": 0.5, "precision": 0.92, "share_interval": [0.3, 0.7], "interval": [0.7, 0.98]}}  # fmt: skip
    by_depth = [{"level": 1, "share": 0.2, "precision": 0.95}, {"level": 2, "share": 0.5, "precision": 0.92}]
    filing = {"precision_wanted": 0.9, "fitted_on": "val", "levels": levels,
              "backoff": {"share": 0.7, "precision": 0.93, "mean_depth": 1.7, "by_depth": by_depth, "without_answer": 0.3},
              "curve": [{"threshold": k / 10, "share": 1 - k / 10, "precision": 0.8 + k / 50} for k in range(10)],
              "departments": departments}  # fmt: skip
    calibration = {"temperature": 1.2, "fitted_on": "val", "ece": 0.05, "ece_interval": [0.02, 0.08], "nll": 0.7, "bins": bins,
                   "after": {"ece": 0.03, "nll": 0.65, "bins": bins}}  # fmt: skip
    return {
        "n": 40, "n_listings": 30, **_headline(), "macro_over": {"categories": 3, "under_5_rows": 0},
        "hierarchical": {"precision": 0.9, "recall": 0.9, "f1": 0.9}, "severity": {"of_mistakes": 1.25, "of_rows": 0.25},
        "distance_at": {"1": 0.25, "3": 1.0, "5": 1.0}, "thirds": thirds, "calibration": calibration, "filing": filing,
        "listings": {"n": 30, **_headline()}, "confusion": {"level": 1, "ids": ["Animals", "Transport"], "matrix": [[29, 1], [1, 9]]},
        "errors": {"n": 8, "by_kind": {"probably misfiled by the seller": 3, "sibling mix-up": 4, "the model's own mistake": 1}},
    }  # fmt: skip


def _line(key: str, support: int) -> dict:
    other = "dog" if key == "cat" else "cat"
    return {"id": key, "path": PATHS[key], "train_rows": 3 * support, "third": "middle", "support": support, "listings": support - 3,
            "precision": 0.8, "recall": 0.8, "f1": 0.8, "threshold": 0.6, "share_filed": 0.5, "worst": {**_category(other), "n": 2}}  # fmt: skip
