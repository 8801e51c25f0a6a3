"""Join the world that the environment describes: our launcher's, `srun`'s, `horovodrun`'s or `mpirun`'s; or be a world of one."""

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from distributed.heartbeat import Heartbeat, Monitor
from distributed.loading import load_tensorflow
from distributed.rendezvous import Rendezvous, address_of, find, get, interface_towards, serve
from distributed.srun import Step, read_step
from distributed.world import World, last_lines, say_lost

CPUS_VARIABLE = "FAMILY_RANK_CPUS"
LAUNCHER_VARIABLE = "FAMILY_LAUNCHER_PID"
MONITOR_VARIABLE = "FAMILY_MONITOR"  # address:port
INTERFACE_VARIABLE = "FAMILY_INTERFACE"
PATIENCE_S = float(os.environ.get("FAMILY_PATIENCE_S") or 600)  # until all ranks have met; nodes start, and pull images, at different times
_LEAVING_S = 15


def started_by_launcher() -> bool:
    """Say whether `--ranks` started this process."""
    return LAUNCHER_VARIABLE in os.environ


def world_size() -> int:
    """Return the ranks of the world that the environment describes, before anything is loaded."""
    for name in ("HOROVOD_SIZE", "OMPI_COMM_WORLD_SIZE"):  # before srun's: a task of srun may itself have started ranks
        if os.environ.get(name):
            return int(os.environ[name])
    step = read_step(os.environ)
    return step.size if step else 1


def join(logs: Path | None = None, step_ms: float = 150) -> World:
    """Join the world; without one, a world of one that needs no Horovod.

    Must run before TensorFlow makes its threads, since it binds the process to its rank's cores.

    Args:
        logs: where the last lines of ranks that `srun` started are looked for; see `keep_log`.
        step_ms: what an update is expected to take on a core, roughly; of no use beside a GPU, where Horovod's own 1 ms stays.

    Raises:
        RuntimeError: Horovod sees another world than the one that the environment tells of.
        OSError, TimeoutError: the ranks of a step don't find one another.
    """
    if CPUS_VARIABLE in os.environ:
        os.sched_setaffinity(0, {int(cpu) for cpu in os.environ[CPUS_VARIABLE].split(",")})
    if started_by_launcher():
        die_with(int(os.environ[LAUNCHER_VARIABLE]))
    size = world_size()
    if size == 1:
        return World()
    step = None if {"HOROVOD_SIZE", "OMPI_COMM_WORLD_SIZE"} & os.environ.keys() else read_step(os.environ)
    leave = _meet(step, logs) if step else _follow(os.environ.get(MONITOR_VARIABLE))
    if not Path("/proc/driver/nvidia").exists():
        os.environ.setdefault("HOROVOD_CYCLE_TIME", f"{cycle_time_ms(step_ms):.1f}")
    load_tensorflow()
    import horovod.tensorflow as hvd

    hvd.init()
    if hvd.size() != size:
        raise RuntimeError(f"the environment tells of {size} ranks and Horovod of {hvd.size()}: this Horovod was built without MPI; "
                           "start the ranks with --ranks, srun or horovodrun --gloo")  # fmt: skip
    return World(rank=hvd.rank(), size=size, local_rank=hvd.local_rank(), leave=leave)


def _follow(monitor: str | None) -> Callable[[], None]:
    """Beat for our launcher's monitor; other launchers have their own ways."""
    if not monitor:
        return lambda: None
    address, _, port = monitor.rpartition(":")
    return Heartbeat(address, int(port), int(os.environ["HOROVOD_RANK"]), "").leave


def _meet(step: Step, logs: Path | None) -> Callable[[], None]:
    """Meet the other tasks of a SLURM step; rank 0 holds the rendezvous and the monitor."""
    address = address_of(step.nodes[0], len(step.nodes) > 1)
    if step.rank == 0:
        monitor = Monitor(address, step.size, lambda *loss: _give_up(*loss, step, logs))
        hosts = list(zip(step.nodes, step.tasks, strict=True))
        rendezvous = serve(address, step.ports, hosts, {"name": step.name, "monitor": str(monitor.port)})
        port, leave = rendezvous.port, lambda: _close(rendezvous, monitor)
    else:
        port = find(address, step.ports, step.name, PATIENCE_S)
        monitor_port = int(get(address, port, "monitor"))
        leave = Heartbeat(address, monitor_port, step.rank, step.nodes[step.node], end_all=lambda: _end_step(step)).leave
    os.environ |= step_environment(step, address, port)
    return leave


def step_environment(step: Step, address: str, port: int) -> dict[str, str]:
    """Return what Horovod reads, for a task of a SLURM step."""
    return {
        **gloo_environment(address, port, os.environ.get(INTERFACE_VARIABLE) or interface_towards(address)),
        "HOROVOD_RANK": str(step.rank),
        "HOROVOD_SIZE": str(step.size),
        "HOROVOD_LOCAL_RANK": str(step.local_rank),
        "HOROVOD_LOCAL_SIZE": str(step.local_size),
        "HOROVOD_CROSS_RANK": str(step.cross_rank),
        "HOROVOD_CROSS_SIZE": str(step.cross_size),
        "HOROVOD_HOSTNAME": step.nodes[step.node],
        "HOROVOD_JOB_ID": step.name,
    }


def gloo_environment(address: str, port: int, interface: str) -> dict[str, str]:
    """Return what Horovod reads of any Gloo world; the user's own HOROVOD_ variables come before our defaults."""
    return {
        "HOROVOD_CONTROLLER": "gloo",
        "HOROVOD_CPU_OPERATIONS": "gloo",
        "HOROVOD_GLOO_RENDEZVOUS_ADDR": address,
        "HOROVOD_GLOO_RENDEZVOUS_PORT": str(port),
        "HOROVOD_GLOO_IFACE": interface,
        # Ranks meet after tracing, at different times; faults are seen by heartbeats, not by this.
        "HOROVOD_GLOO_TIMEOUT_SECONDS": os.environ.get("HOROVOD_GLOO_TIMEOUT_SECONDS", str(int(PATIENCE_S))),
    }


def cycle_time_ms(step_ms: float) -> float:
    """Return how often ranks that compute on the same cores should speak, for steps of so many milliseconds.

    Horovod's ranks speak every cycle, even when none has anything to say, and a sum waits for the next one. A cycle was measured to
    cost 0.6 ms of a rank's core, and a sum waits half a cycle: 0.6 / cycle + cycle / 2 / step is least here.
    """
    return min(100.0, max(5.0, (1.2 * step_ms) ** 0.5))


def _close(rendezvous: Rendezvous, monitor: Monitor) -> None:
    """Let the others leave first: srun kills them as soon as the first task ends with an error code of its own."""
    monitor.wait_for_others(_LEAVING_S)
    monitor.stop()
    rendezvous.stop()


def _give_up(rank: int, host: str, what: str, step: Step, logs: Path | None) -> None:
    say_lost(rank, host, what, last_lines(logs / f"rank-{rank}.log") if logs else [])
    sys.stdout.flush()
    _end_step(step)
    # Not an exception: the main thread may wait in a collective operation that never ends. srun ends the others.
    os._exit(1)


def _end_step(step: Step) -> None:
    """Kill all tasks of the step: one that is stopped hears nothing else, and srun would wait for SLURM's KillWait."""
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):  # a container may lack scancel; then srun ends the step, later
        subprocess.run(["scancel", "--signal=KILL", step.name], capture_output=True, timeout=10)


def keep_log(logs: Path, world: World) -> None:
    """Let a rank that `srun` started, its libraries included, write to a file of its own, so that the job's log is that of rank 0."""
    if world.is_first or "HOROVOD_JOB_ID" not in os.environ or not read_step(os.environ):
        return
    logs.mkdir(parents=True, exist_ok=True)
    log = logs / f"rank-{world.rank}.log"
    print(f"this rank, on {socket.gethostname()}, writes to {log}", file=sys.stderr, flush=True)
    with open(log, "ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)


def die_with(launcher: int) -> None:
    """Ask the kernel to kill this process when the one that started it ends, however that ends."""
    set_parent_death_signal = 1  # PR_SET_PDEATHSIG of prctl(2)
    ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)
    if os.getppid() != launcher:  # it died before the request
        os._exit(1)
