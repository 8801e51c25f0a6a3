"""`family bench fabric`: latency and bandwidth of sums between ranks, as the trainer makes them; lines for a cluster's [fabric] table.

On one node it measures the links between its GPUs (or cores), with one rank a node the network: run both.
"""

import argparse
import json
import os
import socket
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from family.errors import Failure, UserError
from family.outputs import whole_file

SIZES = tuple(4**k * 1024 for k in range(1, 9))  # 4 KB to 64 MB of float32


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--ranks", type=int, default=1, metavar="N", help="Horovod ranks on this machine (default: the world that srun started)"
    )
    parser.add_argument("--repeats", type=int, default=20, metavar="N", help="sums of each size (default 20)")
    parser.add_argument("--out", type=Path, metavar="FILE.toml", help="write the lines there")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    from distributed.joining import join, started_by_launcher, world_size

    if args.repeats < 3 or args.ranks < 1:
        raise UserError(f"--repeats {args.repeats}, --ranks {args.ranks}: wanted at least 3 and 1")
    if args.ranks > 1 and not started_by_launcher():
        return _launch(args)
    if world_size() == 1:
        raise UserError("one rank has nobody to speak to: --ranks 2, or `family submit --nodes 2 --tasks-per-node 1 ... -- bench fabric`")
    world = join()
    told = measure(world, args.repeats)
    world.leave()
    if world.is_first:
        text = to_toml(told)
        if args.out:
            with whole_file(args.out) as partial:
                partial.write_text(text, encoding="utf-8")
        print(json.dumps(told) if args.json else text)
    return 0


def _launch(args: argparse.Namespace) -> int:
    from distributed.launch import launch

    words = ["bench", "fabric", "--ranks", str(args.ranks), "--repeats", str(args.repeats)]
    words += [*(["--out", str(args.out)] if args.out else []), *(["--json"] if args.json else [])]
    with tempfile.TemporaryDirectory(prefix="family-fabric-") as logs:
        code = launch([sys.executable, "-m", "family.cli", *words], args.ranks, Path(logs))
    if code:
        raise Failure(f"measuring with {args.ranks} ranks failed; see above")
    return 0


def measure(world, repeats: int) -> dict:
    """Time sums of several sizes on all ranks; return medians and what they come to."""
    import tensorflow as tf

    from benchmarks.machine import now
    from distributed.devices import use_devices

    use_devices(world)
    hosts = world.gather(_host())
    n_nodes, local = len(set(hosts)), max(hosts.count(host) for host in hosts)
    if n_nodes > 1 and local > 1:
        raise UserError(
            f"{world.size} ranks on {n_nodes} nodes mix two networks: one rank a node measures the network, one node its inside"
        )
    nothing, seconds = tf.zeros(1), []
    for size in SIZES:
        values = tf.ones(size // 4)
        took = []
        for _ in range(repeats + 2):
            world.barrier()
            began = time.perf_counter()
            world.sum_gradients([values], nothing)[0][0].numpy()
            took.append(time.perf_counter() - began)
        seconds.append(float(np.median(took[2:])))
    latency_s, bytes_per_s = fit(SIZES, world.sum(seconds) / world.size, world.size)
    return {"ranks": world.size, "nodes": n_nodes, "latency_us": latency_s * 1e6, "bytes_per_s": bytes_per_s, "sizes": list(SIZES),
            "seconds": seconds, "at": now(), "hosts": sorted(set(hosts))}  # fmt: skip


def fit(sizes, seconds, n: int) -> tuple[float, float]:
    """Return (latency of a message, bytes/s of a link) of a ring of n whose sums took so long.

    The smallest sum is all messages, the largest nearly all bytes.
    """
    latency_s = seconds[0] / (2 * (n - 1))
    moved = 2 * (n - 1) / n * (sizes[-1] - sizes[0])
    return float(latency_s), float(moved / max(1e-9, seconds[-1] - seconds[0]))


def to_toml(told: dict) -> str:
    """Return the lines of a [fabric] table that the measurement fills."""
    note = f"{told['at'][:10]}, sums of {told['ranks']} ranks on {told['nodes']} node{'s' * (told['nodes'] > 1)}"
    if told["nodes"] == 1:
        values = {"intra_node_latency_us": told["latency_us"], "intra_node_bandwidth_gbyte_s": told["bytes_per_s"] / 1e9}
    else:
        values = {"latency_us": told["latency_us"], "bandwidth_gbit_s": told["bytes_per_s"] * 8 / 1e9}
    lines = [f"{name} = {value:.3f}" for name, value in values.items()]
    return "\n".join(["[fabric]", *lines, f'measured = "{note}"', f"measured_fields = {json.dumps(list(values))}"]) + "\n"


def _host() -> str:
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()
