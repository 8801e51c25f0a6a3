"""Start ranks of our own command line on this machine, with Gloo's rendezvous and neither MPI nor ssh, and watch over them."""

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from distributed.world import CPUS_VARIABLE, LAUNCHER_VARIABLE

_TAIL_LINES = 12


def launch(command: list[str], n_ranks: int, logs: Path) -> int:
    """Run a command as `n_ranks` local Horovod ranks and return 0, or the exit code of the first rank that failed.

    Rank 0 writes to our own output, the others to `logs/rank-N.log`. When one rank fails, the others are stopped and its last
    lines are shown; when this process ends, however it ends, so do they.
    """
    with started([command] * n_ranks, logs, first_is_shown=True) as children:
        return _watch(children, logs)


@contextmanager
def started(
    commands: list[list[str]], logs: Path, joined: bool = True, environment: dict[str, str] | None = None, first_is_shown: bool = False
) -> Iterator[list[subprocess.Popen]]:
    """Start one process for each command, each with its share of the cores, and give them; kill what is left on leaving.

    Args:
        joined: as the Horovod ranks of one world; otherwise each is a world of one.
        environment: added to theirs.
        first_is_shown: the first writes to our own output; the others, or else all, to `logs/rank-N.log`.
    """
    n = len(commands)
    server, port = _rendezvous(n) if joined else (None, 0)
    logs.mkdir(parents=True, exist_ok=True)
    cores = _share_cores(n)
    children = []
    try:
        for rank, command in enumerate(commands):
            own = _rank_environment(rank, n, port) if joined else {}
            own |= {CPUS_VARIABLE: cores[rank], LAUNCHER_VARIABLE: str(os.getpid())}
            own = {**os.environ, **own, **(environment or {})}
            with open(logs / f"rank-{rank}.log", "wb") as log:
                output = None if rank == 0 and first_is_shown else log
                children.append(subprocess.Popen(command, env=own, stdout=output, stderr=output, stdin=subprocess.DEVNULL))
        yield children
    finally:
        for child in children:
            if child.poll() is None:
                child.kill()
        for child in children:
            child.wait()
        if server:
            server.stop()


def _rendezvous(n_ranks: int):
    """Start Horovod's rendezvous server with the plan of one host."""
    from horovod.runner.common.util.hosts import get_host_assignments, parse_hosts
    from horovod.runner.http.http_server import RendezvousServer

    server = RendezvousServer(verbose=0)
    port = server.start()
    server.init(get_host_assignments(parse_hosts(f"localhost:{n_ranks}"), n_ranks, n_ranks))
    return server, port


def _rank_environment(rank: int, n_ranks: int, port: int) -> dict[str, str]:
    return {
        "HOROVOD_RANK": str(rank),
        "HOROVOD_SIZE": str(n_ranks),
        "HOROVOD_LOCAL_RANK": str(rank),
        "HOROVOD_LOCAL_SIZE": str(n_ranks),
        "HOROVOD_CROSS_RANK": "0",
        "HOROVOD_CROSS_SIZE": "1",
        "HOROVOD_HOSTNAME": "localhost",
        "HOROVOD_CONTROLLER": "gloo",
        "HOROVOD_CPU_OPERATIONS": "gloo",
        "HOROVOD_GLOO_RENDEZVOUS_ADDR": "127.0.0.1",
        "HOROVOD_GLOO_RENDEZVOUS_PORT": str(port),
        "HOROVOD_GLOO_IFACE": "lo",
        "HOROVOD_GLOO_TIMEOUT_SECONDS": "300",  # ranks meet after tracing; faults are seen by watching, not by this
        "HOROVOD_JOB_ID": secrets.token_hex(4),
        "HOROVOD_CYCLE_TIME": os.environ.get("HOROVOD_CYCLE_TIME", _cycle_time_ms()),
    }


def _cycle_time_ms() -> str:
    # Horovod's ranks speak every cycle, even when none has anything to say. Where they compute on the same cores, its default
    # of 1 ms costs a tenth of them; a step takes seconds there and can wait 10 ms for its sums. Beside a GPU it cannot.
    return "1" if Path("/proc/driver/nvidia").exists() else "10"


def _share_cores(n_ranks: int) -> list[str]:
    """Return each rank's cores as a list of numbers; ranks share cores where there are fewer cores than ranks."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < n_ranks:
        return [str(cores[rank % len(cores)]) for rank in range(n_ranks)]
    share = len(cores) // n_ranks
    return [",".join(map(str, cores[rank * share : (rank + 1) * share])) for rank in range(n_ranks)]


def _watch(children: list[subprocess.Popen], logs: Path) -> int:
    """Wait for all; the first that fails ends the others."""

    def stop(signum, frame):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        while True:
            codes = [child.poll() for child in children]
            failed = [rank for rank, code in enumerate(codes) if code]
            if failed:
                return _report_failure(failed[0], codes[failed[0]], logs)
            if all(code == 0 for code in codes):
                return 0
            time.sleep(0.1)
    finally:
        signal.signal(signal.SIGTERM, before)


def _report_failure(rank: int, code: int, logs: Path) -> int:
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    print(f"rank {rank} {how}; the other ranks were stopped", file=sys.stderr)
    if rank > 0:
        lines = (logs / f"rank-{rank}.log").read_text(errors="replace").splitlines()[-_TAIL_LINES:]
        print("\n".join(f"  rank {rank}: {line}" for line in lines), file=sys.stderr)
    return code if 0 < code < 128 else 1
