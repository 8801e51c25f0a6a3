"""How long `family report` takes on many measurements, the process's start included: python -m benchmarks.studies.reporting RESULTS.jsonl...

The rows are those of the results, again and again under other names and digests.
"""

import argparse
import hashlib
import itertools
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.measurements import read_rows

N_TIMES = 3
FILES = ("report.html", "report.md", "table.csv", "accuracy-latency.svg")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.studies.reporting", description=__doc__.splitlines()[0])
    parser.add_argument("results", nargs="+", type=Path, metavar="RESULTS.jsonl", help="measurements to repeat")
    parser.add_argument("--rows", default="2000,10000", metavar="N,...", help="numbers of rows (default 2000,10000)")
    args = parser.parse_args()
    rows = read_rows(args.results)
    for n_rows in map(int, args.rows.split(",")):
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps({"rows": n_rows, **_time(rows, n_rows, Path(folder))}), flush=True)
    return 0


def _time(rows: list[dict], n_rows: int, folder: Path) -> dict:
    """Return seconds, by the clock and of the processor (medians of a few runs), and the megabytes of each file."""
    path, out = folder / "results.jsonl", folder / "report"
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in repeated(rows, n_rows))
    seconds, worked = [], []
    for _ in range(N_TIMES):
        command = [sys.executable, "-m", "family.cli", "report", str(path), "--out", str(out), "--budget-ms", "10", "--fresh"]
        began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        seconds.append(time.perf_counter() - began)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        worked.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    sizes = {name: round((out / name).stat().st_size / 1e6, 1) for name in FILES}
    return {"s": round(statistics.median(seconds), 1), "processor_s": round(statistics.median(worked), 1), "mb": sizes}


def repeated(rows: list[dict], n_rows: int) -> list[dict]:
    """Return so many rows: those of `rows`, then the same of other members whose names end in -1, -2, ..."""
    found = []
    for k in itertools.count():
        for row in rows:
            if len(found) == n_rows:
                return found
            found.append(_renamed(row, k) if k else row)


def _renamed(row: dict, k: int) -> dict:
    """Return a row of the k-th other member; what it is compared with is renamed like it."""
    row = {**row, "member": f"{row['member']}-{k}", "model_sha256": _digest(row["model_sha256"], k)}
    paired = row.get("against_fp32") or {}
    return {**row, "against_fp32": {**paired, "model_sha256": _digest(paired["model_sha256"], k)}} if paired.get("model_sha256") else row


def _digest(digest: str, k: int) -> str:
    return hashlib.sha256(f"{k} {digest}".encode()).hexdigest()


if __name__ == "__main__":
    sys.exit(main())
