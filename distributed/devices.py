"""Threads and GPUs of this process."""

import os

import tensorflow as tf

from distributed.world import World


def use_devices(world: World) -> dict:
    """Give TensorFlow this rank's cores and its GPU, and return what is used.

    Raises:
        RuntimeError: more local ranks than visible GPUs.
    """
    # The affinity, not the machine: a rank, a container or a SLURM task owns only some cores.
    n_cores = len(os.sched_getaffinity(0))
    tf.config.threading.set_intra_op_parallelism_threads(n_cores)
    tf.config.threading.set_inter_op_parallelism_threads(n_cores)
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        if len(gpus) > 1 and world.local_rank >= len(gpus):
            raise RuntimeError(f"local rank {world.local_rank} has no GPU of its own: {len(gpus)} are visible")
        own = gpus[0] if len(gpus) == 1 else gpus[world.local_rank]
        tf.config.set_visible_devices(own, "GPU")
        tf.config.experimental.set_memory_growth(own, True)
    return {"cores": n_cores, "gpu": tf.config.experimental.get_device_details(own).get("device_name") if gpus else None}
