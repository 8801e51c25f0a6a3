"""How long `family report` takes on many measurements, the process's start included: python -m benchmarks.studies.reporting RESULTS.jsonl...

The rows are those of the results, again and again under other names and digests.
"""

import argparse
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
from benchmarks.studies.picking import repeated

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
        file.writelines(json.dumps(row) + "\n" for row in itertools.islice(repeated(rows), n_rows))
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


if __name__ == "__main__":
    sys.exit(main())
