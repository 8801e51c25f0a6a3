"""How long `family pick` takes on many measurements, the process's start included, and how much of it is reading JSON.

    python -m benchmarks.studies.picking RESULTS.jsonl [--rows 10000] [--machine NAME] [--out FILE]

The measurements are those of RESULTS.jsonl again and again, whole, as `family bench` wrote them: each time of other files and bundles, with other times
and accuracies. Beside the command, a process of its own makes objects of the same lines: it is the limit of whoever makes all of them.
"""

import argparse
import hashlib
import itertools
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.machine import describe_machine, now
from benchmarks.measurements import REQUIRED, lean, read_rows
from family.outputs import write_json

N_TIMES = 9
_LIMIT = "import msgspec, sys\nwith open(sys.argv[1], 'rb', buffering=2**20) as file:\n    for line in file:\n        msgspec.json.decode(line)"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.studies.picking", description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path, nargs="+", metavar="RESULTS.jsonl", help="what is repeated")
    parser.add_argument("--rows", type=int, default=10_000, metavar="N", help="of latency and of accuracy, as many of each as there are (default 10,000)")
    parser.add_argument("--machine", metavar="NAME", help="what to call this machine")
    parser.add_argument("--out", type=Path, metavar="FILE.json")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "results.jsonl"
        with open(path, "w", encoding="utf-8") as file:
            for row in itertools.islice(repeated(read_rows(args.results)), args.rows):
                file.write(json.dumps(lean(row), ensure_ascii=False, separators=(",", ":")) + "\n")
        load = os.getloadavg()[0]  # of others: 0 where this machine has nothing else to do
        about = {"at": now(), "load": round(load, 2), "machine": describe_machine(args.machine)}
        found = {**about, "rows": args.rows, "mb": round(path.stat().st_size / 1e6, 1), **_time_all(path)}
    if args.out:
        write_json(args.out, found)
    json.dump(found, sys.stdout)
    print()
    return 0


def repeated(rows: list[dict]) -> Iterator[dict]:
    """Yield measurements without end, of other files each time: latency and accuracy of one file stay together, and an fp32 with what was compared with it."""
    rng, rows = random.Random(0), [row for row in rows if row["kind"] in REQUIRED]
    for k in itertools.count():

        def other(sha256: str, k: int = k) -> str:
            return hashlib.sha256(f"{sha256} {k}".encode()).hexdigest()

        for row in rows:
            row = {**row, "member": f"{row['member']}-{k}", "bundle": f"{row.get('bundle')}-{k}", "model_sha256": other(row["model_sha256"])}
            against = row.get("against_fp32")
            if against and "model_sha256" in against:
                row["against_fp32"] = {**against, "model_sha256": other(against["model_sha256"])}
            scale = rng.uniform(0.5, 1)
            part = "latency_ms" if row["kind"] == "latency" else "metrics"
            row[part] = _scaled(row[part], scale) if part == "latency_ms" else {**row[part], "top1": _scaled(row[part]["top1"], scale)}
            yield row


def _scaled(value: object, scale: float) -> object:
    if isinstance(value, dict):
        return {key: _scaled(part, scale) for key, part in value.items()}
    if isinstance(value, list):
        return [_scaled(part, scale) for part in value]
    return value * scale if isinstance(value, float) else value


def _time_all(path: Path) -> dict:
    """Time the command, reading all of the same file, and the start of Python, in turns."""
    sides = {
        "pick": [sys.executable, "-m", "family.cli", "pick", str(path), "--budget-ms", "20", "--json"],
        "objects": [sys.executable, "-c", _LIMIT, str(path)],
        "start": [sys.executable, "-c", "pass"],
    }
    compiled = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}  # as installed: compiled once, not at each start
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(N_TIMES):
        for name, command in sides.items():
            began = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={**compiled, "PYTHONPATH": str(Path(__file__).parents[2])})
            seconds[name].append(time.perf_counter() - began)
    return {f"{name}_s": {"median": round(statistics.median(taken), 3), "least": round(min(taken), 3)} for name, taken in seconds.items()}


if __name__ == "__main__":
    sys.exit(main())
