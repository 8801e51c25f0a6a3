"""Threads and GPUs of this process."""

import os
import socket
import subprocess

import tensorflow as tf

from distributed.world import World


def use_devices(world: World) -> dict:
    """Give TensorFlow this rank's cores and its GPU, and return what is used.

    Raises:
        RuntimeError: a GPU that was asked for is not there, or ranks would share one.
    """
    # The affinity, not the machine: a rank, a container or a SLURM task owns only some cores.
    n_cores = len(os.sched_getaffinity(0))
    tf.config.threading.set_intra_op_parallelism_threads(n_cores)
    tf.config.threading.set_inter_op_parallelism_threads(n_cores)
    gpus = tf.config.list_physical_devices("GPU")
    index = pick_gpu(len(gpus), world.local_rank, int(os.environ.get("SLURM_GPUS_ON_NODE") or 0))
    if index is not None:
        tf.config.set_visible_devices(gpus[index], "GPU")
        tf.config.experimental.set_memory_growth(gpus[index], True)
    with tf.device("CPU:0"):  # before anything is asked of NCCL, which two ranks of one GPU would break
        refuse_sharing(world.gather(_claim(index)))
    return {"cores": n_cores, "gpu": None if index is None else tf.config.experimental.get_device_details(gpus[index]).get("device_name")}


def pick_gpu(n_visible: int, local_rank: int, n_given: int) -> int | None:
    """Return which of the visible GPUs is this rank's: the only one, or that of its local rank; None on a machine without.

    Args:
        n_given: GPUs that the queue gave this node.
    """
    if n_visible == 0 and n_given:
        raise RuntimeError(f"the queue gave this node {n_given} GPUs and TensorFlow sees none; `family doctor` tells more")
    if n_visible > 1 and local_rank >= n_visible:
        raise RuntimeError(f"local rank {local_rank} has no GPU of its own: {n_visible} are visible; start one rank a GPU")
    return None if n_visible == 0 else 0 if n_visible == 1 else local_rank


def refuse_sharing(claims: list[tuple | None]) -> None:
    """Hold that no two ranks use the same GPU, and that all ranks have one or none has.

    Args:
        claims: by rank, what its GPU can be told by; None without one.
    """
    without = [rank for rank, claim in enumerate(claims) if claim is None]
    if without and len(without) < len(claims):
        raise RuntimeError(f"rank {without[0]} sees no GPU while other ranks do")
    for rank, claim in enumerate(claims):
        if claim is not None and claim in claims[:rank]:
            raise RuntimeError(f"ranks {claims.index(claim)} and {rank} would share a GPU of {claim[0]}; start one rank a GPU")


def _claim(index: int | None) -> tuple | None:
    """Return what tells this rank's GPU from others: its UUID, or, without nvidia-smi, host and numbers."""
    if index is None:
        return None
    host, visible = os.environ.get("SLURMD_NODENAME") or socket.gethostname(), os.environ.get("CUDA_VISIBLE_DEVICES", "")
    uuids = _uuids()
    if len(uuids) == 1:  # the driver shows this task one device, whatever number it has
        return (host, uuids[0])
    names = [name.strip() for name in visible.split(",") if name.strip()]
    own = names[index] if index < len(names) else str(index)
    return (host, uuids[int(own)] if own.isdigit() and int(own) < len(uuids) else own)


def _uuids() -> list[str]:
    try:
        words = ["nvidia-smi", "--query-gpu=uuid", "--format=csv,noheader"]
        return subprocess.run(words, capture_output=True, text=True, timeout=60).stdout.split()
    except (OSError, subprocess.TimeoutExpired):
        return []
