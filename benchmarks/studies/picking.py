"""How long `family pick` takes on many made-up measurements, the process's start included: python -m benchmarks.studies.picking [--rows 10000]"""

import argparse
import hashlib
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

N_TIMES = 7
N_LEVELS = 6


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.studies.picking", description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000, metavar="N", help="half of latency, half of accuracy (default 10,000)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "results.jsonl"
        write_rows(path, args.rows // 2)
        command = [sys.executable, "-m", "family.cli", "pick", str(path), "--budget-ms", "20", "--json"]
        seconds = []
        for _ in range(N_TIMES):
            began = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            seconds.append(time.perf_counter() - began)
        json.dump({"rows": args.rows, "mb": round(path.stat().st_size / 1e6, 1), "s": statistics.median(seconds), "least_s": min(seconds)}, sys.stdout)
    print()
    return 0


def write_rows(path: Path, n_members: int) -> None:
    """Write a latency and an accuracy row of each of so many members, as `family bench` writes them."""
    rng = random.Random(0)
    machine = {"name": "desk", "cpu": "A CPU", "cores": 2, "features": ["avx2", "fma"], "gpu": None, "versions": {"onnxruntime": "1.26.0", "pillow": "11.0"}}
    with open(path, "w", encoding="utf-8") as file:
        for k in range(n_members):
            common = {"schema": 2, "at": "2026-01-01T00:00:00Z", "member": f"m{k}-128-general-int8", "variant": "b0", "resolution_px": 128, "scope": "general",
                      "label": None, "scheme": "int8", "model_sha256": hashlib.sha256(str(k).encode()).hexdigest(), "trained": True}  # fmt: skip
            ms, right = rng.uniform(1, 100), rng.random()
            times = {f"p{q}": ms * scale for q, scale in ((50, 1), (90, 1.1), (95, 1.2), (99, 1.3))}
            latency = {**common, "kind": "latency", "bundle": f"bundles/m{k}", "machine": machine, "provider": "cpu", "threads": 1, "scenario": "single-stream",
                       "batch": 1, "n": 400, "warmup": 20, "latency_ms": {**times, "upper": 1.4 * ms, "uppers": times, "mean": ms}, "agreement": 1.0,
                       "stages_ms": {"decode": 1.0, "model": ms}, "throughput": [{"batch": 1, "images_per_s": 1000 / ms}], "valid": True,
                       "peak_memory_mb": 120.0}  # fmt: skip
            figures = {"micro": right, "macro": right, "micro_interval": [right, right], "macro_interval": [right, right]}
            metrics = {"n": 3000, "n_listings": 2800, "top1": figures, "top3": figures, "top5": figures,
                       "levels": {str(level): {**figures, "nodes": 10 * level} for level in range(1, N_LEVELS + 1)}}  # fmt: skip
            dataset = {"name": "d", "digest": "x" * 64, "split": "test"}
            for row in (latency, {**common, "kind": "accuracy", "dataset": dataset, "n": 3000, "metrics": metrics}):
                file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    sys.exit(main())
