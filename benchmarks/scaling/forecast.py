"""`family forecast`: step time, efficiency, time to train and node-hours on a cluster, from a step time and the network's figures.

What it knows is communication. What else a cluster loses (input, launch overhead, stragglers) is a term of its own, taken from what
communication does not explain in published tables; nothing is fitted to them. Standard library only.
"""

import argparse
import json
import math
import tomllib
from dataclasses import dataclass, fields
from pathlib import Path

from family.errors import UserError, unknown_name

PUBLISHED = Path(__file__).parents[1] / "results/published-scaling.json"
CLUSTERS = Path(__file__).parents[2] / "slurm/clusters"
BACKWARD_SHARE = 2 / 3  # of a step: the backward pass costs about twice the forward one, and sums can hide behind it
BYTES = {"none": 4, "fp16": 2}


@dataclass(frozen=True)
class Fabric:
    """What gradients travel over."""

    latency_us: float  # of a message between two nodes
    bandwidth_gbit_s: float  # of a node's network, all its links together, one way
    gpus_per_node: int
    intra_node_bandwidth_gbyte_s: float  # between two GPUs of a node, one way
    intra_node_latency_us: float = 3.0
    measured: str = ""  # where and when `family bench fabric` measured; else the figures are published ones
    measured_fields: tuple[str, ...] = ()  # those that it measured


@dataclass(frozen=True)
class Interval:
    """A low and a high end."""

    low: float
    high: float


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--variant", help="see `family list variants`")
    parser.add_argument("--cluster", metavar="FILE", help="a cluster's TOML with a [fabric] table, or the name of one that ships")
    parser.add_argument("--gpus", default="8,64,512", metavar="N,N", help="how many, one row each (default 8,64,512)")
    parser.add_argument("--images-per-s", type=float, metavar="R", help="training rate of one GPU, measured or assumed")
    parser.add_argument("--results", type=Path, metavar="RESULTS.jsonl", help="take the rate from a row of `family bench train` in it")
    parser.add_argument("--batch-per-gpu", type=int, default=64, metavar="N", help="rows of a GPU in one update (default 64)")
    parser.add_argument("--images", type=float, default=5e6, metavar="N", help="of the dataset (default 5e6)")
    parser.add_argument("--categories", type=int, default=3000, metavar="N", help="of the dataset (default 3000)")
    parser.add_argument("--epochs", type=float, default=30, metavar="N", help="over the whole dataset (default 30)")
    parser.add_argument("--compression", default="none", choices=sorted(BYTES), help="of the gradients (default none)")
    parser.add_argument("--published", action="store_true", help="show what the model predicts for published tables, beside them")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    if args.published:
        rows = compare_published()
        print(json.dumps({"rows": rows}) if args.json else _published_table(rows))
        return 0
    told = forecast(args)
    print(json.dumps(told) if args.json else _table(told))
    return 0


def forecast(args: argparse.Namespace) -> dict:
    """Return {"rows", "inputs"}: one row for each number of GPUs, and where each input comes from."""
    counts = _read_counts(args.gpus)
    wrong = [name for name in ("batch_per_gpu", "images", "categories", "epochs") if not getattr(args, name) > 0]
    if wrong:
        raise UserError(f"--{wrong[0].replace('_', '-')} {getattr(args, wrong[0])}: wanted more than 0")
    if not args.variant or not args.cluster:
        raise UserError("--variant and --cluster are required (or --published)")
    fabric = read_fabric(args.cluster)
    rate, rate_from = _read_rate(args)
    n_parameters = parameters_of(args.variant, args.categories)
    step_s = args.batch_per_gpu / rate
    lost = unexplained()
    rows = []
    for n in counts:
        sum_s = all_reduce_s(n_parameters * BYTES[args.compression], n, fabric)
        times = step_time_s(step_s, sum_s, lost if n > 1 else Interval(0, 0))
        rows.append(_row(args, n, fabric, rate, sum_s, times, step_s))
    inputs = [
        {"name": "rate of one GPU", "value": rate, "unit": "images/s", "from": rate_from},
        *_network(fabric),
        {"name": "gradient", "value": n_parameters * BYTES[args.compression] / 1e6, "unit": "MB",
         "from": f"computed: {n_parameters:,} parameters with {args.categories:,} categories"},
        {"name": "hidden behind the backward pass", "value": [0, BACKWARD_SHARE], "unit": "of a step", "from": "assumed: from none of it to all of it"},
        {"name": "lost to other things", "value": [lost.low, lost.high], "unit": "of a step",
         "from": "published: what communication does not explain of EfficientNet on A100"},
        {"name": "dataset", "value": [args.images, args.epochs], "unit": "images, epochs", "from": "given"},
    ]  # fmt: skip
    return {"rows": rows, "inputs": inputs}


def _network(fabric: Fabric) -> list[dict]:
    """Return an input for each figure of the network, measured or assumed."""
    units = {"latency_us": "us", "bandwidth_gbit_s": "Gbit/s", "intra_node_latency_us": "us", "intra_node_bandwidth_gbyte_s": "GB/s"}
    where = {name: f"measured: {fabric.measured}" for name in fabric.measured_fields}
    return [{"name": name, "value": getattr(fabric, name), "unit": unit, "from": where.get(name, "assumed: [fabric] of the cluster")}
            for name, unit in units.items()]  # fmt: skip


def _row(args, n: int, fabric: Fabric, rate: float, sum_s: float, times: Interval, step_s: float) -> dict:
    n_steps = math.ceil(args.images / (n * args.batch_per_gpu)) * args.epochs
    hours = [n_steps * s / 3600 for s in (times.low, times.high)]
    nodes = math.ceil(n / fabric.gpus_per_node)
    return {
        "gpus": n,
        "nodes": nodes,
        "batch_size": n * args.batch_per_gpu,
        "all_reduce_ms": sum_s * 1000,
        "step_ms": [times.low * 1000, times.high * 1000],
        "efficiency": [step_s / times.high, step_s / times.low],
        "images_per_s": [n * rate * step_s / times.high, n * rate * step_s / times.low],
        "hours": hours,
        "node_hours": [nodes * h for h in hours],
    }


def all_reduce_s(n_bytes: float, n_gpus: int, fabric: Fabric) -> float:
    """Return the seconds to sum `n_bytes` over GPUs: rings inside the nodes, a ring or a tree between them, whichever is faster.

    Source: Patarasuk and Yuan 2009 (the ring moves 2(n-1)/n of the bytes in 2(n-1) messages); Sanders, Speck and Traeff 2009 (two
    binary trees move 2 of them in 2 log2(n)), as NCCL 2.4 and later do.
    """
    inside = min(n_gpus, fabric.gpus_per_node)
    nodes = math.ceil(n_gpus / fabric.gpus_per_node)
    total = _ring_s(n_bytes, inside, fabric.intra_node_latency_us * 1e-6, fabric.intra_node_bandwidth_gbyte_s * 1e9)
    latency_s, bandwidth = fabric.latency_us * 1e-6, fabric.bandwidth_gbit_s * 1e9 / 8
    return total + min(_ring_s(n_bytes, nodes, latency_s, bandwidth), _tree_s(n_bytes, nodes, latency_s, bandwidth))


def _ring_s(n_bytes: float, n: int, latency_s: float, bytes_per_s: float) -> float:
    return 2 * (n - 1) * latency_s + 2 * (n - 1) / n * n_bytes / bytes_per_s


def _tree_s(n_bytes: float, n: int, latency_s: float, bytes_per_s: float) -> float:
    return 2 * math.ceil(math.log2(n)) * latency_s + (2 * n_bytes / bytes_per_s if n > 1 else 0)


def step_time_s(step_s: float, sum_s: float, lost: Interval) -> Interval:
    """Return the time of a step on many GPUs, from one GPU's and the time of a sum.

    Low: the sum hides behind the backward pass and the least is lost to other things. High: the sum comes after the backward pass,
    as this trainer's does (one group, in a fixed order), and the most is lost.
    """
    hidden = max(0.0, sum_s - BACKWARD_SHARE * step_s)
    return Interval((step_s + hidden) / (1 - lost.low), (step_s + sum_s) / (1 - lost.high))


def compare_published() -> list[dict]:
    """Return published efficiencies beside the predicted ones, and the share of a step that communication does not explain."""
    rows = []
    for row in json.loads(PUBLISHED.read_text(encoding="utf-8")):
        step_s = row["batch_per_gpu"] / row["images_per_s"]
        sum_s = all_reduce_s(row["n_parameters"] * 4, row["gpus"], Fabric(**row["fabric"]))
        times = step_time_s(step_s, sum_s, Interval(0, 0))
        predicted = [step_s / times.high, step_s / times.low]
        # What is left even if nothing of the sum was hidden; a negative share says that some of it was.
        rows.append({**row, "predicted": predicted, "unexplained": 1 - row["published"] / predicted[0]})
    return rows


def unexplained() -> Interval:
    """Return the least and the most that EfficientNet lost to other things than communication in the published tables."""
    shares = [row["unexplained"] for row in compare_published() if row["model"].startswith("EfficientNet")]
    return Interval(max(0.0, min(shares)), max(shares))


def parameters_of(name: str, n_categories: int) -> int:
    """Return a variant's parameters with a head for so many categories."""
    from family.models.variants import variant

    row = variant(name)
    return row.n_parameters + (n_categories - 1000) * (row.n_features + 1)


def read_fabric(name: str) -> Fabric:
    """Read the [fabric] table of a cluster's TOML, by its path or the name of one that ships.

    Raises:
        UserError: no such cluster, no such table, or values that are none.
    """
    path = Path(name) if name.endswith(".toml") else CLUSTERS / f"{name}.toml"
    if not path.is_file():
        raise unknown_name("cluster", name, (path.stem for path in CLUSTERS.glob("*.toml")))
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8")).get("fabric")
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: {error}") from error
    known = {field.name: field for field in fields(Fabric)}
    if not isinstance(table, dict):
        raise UserError(f"{path} has no [fabric] table; wanted {', '.join(known)}. `family bench fabric` measures them")
    for key, value in table.items():
        if key not in known:
            raise unknown_name(f"field of [fabric] in {path}", key, known)
        if key == "measured_fields" and isinstance(value, list) and all(name in known for name in value):
            table[key] = tuple(value)
            continue
        if key != "measured" and not (isinstance(value, int | float) and math.isfinite(value) and value > 0):
            raise UserError(f"{path}: [fabric] {key} takes a number above 0; got {value!r}")
    missing = [key for key in ("latency_us", "bandwidth_gbit_s", "gpus_per_node", "intra_node_bandwidth_gbyte_s") if key not in table]
    if missing:
        raise UserError(f"{path}: [fabric] lacks {', '.join(missing)}")
    return Fabric(**table)


def _read_counts(text: str) -> list[int]:
    if not all(word.strip().isdigit() and int(word) > 0 for word in text.split(",")):
        raise UserError(f"--gpus {text}: wanted numbers such as 8,64,512")
    return [int(word) for word in text.split(",")]


def _read_rate(args: argparse.Namespace) -> tuple[float, str]:
    if args.images_per_s is not None:
        if not (math.isfinite(args.images_per_s) and args.images_per_s > 0):
            raise UserError(f"--images-per-s {args.images_per_s}: wanted more than 0")
        return args.images_per_s, "given"
    if args.results is None:
        raise UserError("no rate of one GPU: give --images-per-s, or --results with a row of `family bench train "
                        f"--variant {args.variant} --out RESULTS.jsonl`, run on such a GPU")  # fmt: skip
    from benchmarks.measurements import read_rows

    rows = [row for row in read_rows([args.results]) if row["kind"] == "training" and row["variant"] == args.variant]
    if not rows:
        raise UserError(f"{args.results} has no row of `family bench train` for {args.variant}")
    row = rows[-1]
    return row["images_per_s"], f"measured on {row['machine']['name']} at {row['resolution_px']} px, {row['at'][:10]}"


def _table(told: dict) -> str:
    lines = [f"{'GPUs':>6}{'nodes':>7}{'rows':>9}{'all-reduce ms':>15}{'step ms':>18}{'efficiency':>16}{'hours':>16}{'node-hours':>18}"]
    for row in told["rows"]:
        efficiency = "-".join(f"{share:.0%}" for share in row["efficiency"])
        lines.append(f"{row['gpus']:>6}{row['nodes']:>7}{row['batch_size']:>9}{row['all_reduce_ms']:>15.2f}{_span(row['step_ms']):>18}{efficiency:>16}"
                     f"{_span(row['hours']):>16}{_span(row['node_hours']):>18}")  # fmt: skip
    lines += ["", "inputs:"] + [f"  {item['name']}: {_shown(item['value'])} {item['unit']} ({item['from']})" for item in told["inputs"]]
    return "\n".join([*lines, "The ends of a range: sums hidden behind the backward pass and little lost; nothing hidden and much lost."])


def _span(ends: list[float]) -> str:
    digits = 0 if min(ends) >= 100 else 1 if min(ends) >= 1 else 2
    return f"{ends[0]:.{digits}f}-{ends[1]:.{digits}f}"


def _shown(value) -> str:
    return " to ".join(f"{item:.3g}" for item in value) if isinstance(value, list) else f"{value:.4g}"


def _published_table(rows: list[dict]) -> str:
    lines = [f"{'system':42}{'model':18}{'GPUs':>5}{'published':>11}{'predicted':>16}{'not communication':>19}"]
    for row in rows:
        predicted = "-".join(f"{share:.1%}" for share in row["predicted"])
        lines.append(
            f"{row['system']:42}{row['model']:18}{row['gpus']:>5}{row['published']:>11.1%}{predicted:>16}{row['unexplained']:>19.1%}"
        )
    return "\n".join([*lines, "Predicted: nothing hidden behind the backward pass, to everything. Below 0 in the last column: some of it was hidden.",
                      f"Sources, and what of them is given or assumed: {PUBLISHED.name}"])  # fmt: skip
