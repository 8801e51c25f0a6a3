"""The world that a process trains in: its rank, the number of ranks, and what they say to one another."""

import ctypes
import os
import signal
from dataclasses import dataclass

import numpy as np

from distributed.loading import load_tensorflow

_RANK_VARIABLES = ("HOROVOD_RANK", "OMPI_COMM_WORLD_RANK")
CPUS_VARIABLE = "FAMILY_RANK_CPUS"
LAUNCHER_VARIABLE = "FAMILY_LAUNCHER_PID"


@dataclass(frozen=True)
class World:
    """One process among `size`; the sums and broadcasts of a world of one are the values themselves."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def sum_gradients(self, gradients: list) -> list:
        """Return the gradients summed over ranks. Works inside `tf.function`."""
        if self.size == 1:
            return gradients
        import horovod.tensorflow as hvd

        # Groups of the model's order, never of arrival: the order of sums must not depend on timing.
        return hvd.grouped_allreduce(gradients, op=hvd.Sum)

    def sum(self, values: np.ndarray) -> np.ndarray:
        """Return float64 values summed over ranks, equal on all of them."""
        values = np.asarray(values, np.float64)
        if self.size == 1:
            return values
        import horovod.tensorflow as hvd

        return hvd.allreduce(values, op=hvd.Sum).numpy()

    def broadcast(self, value):
        """Return rank 0's value (anything that pickles) on every rank: how a decision is made once."""
        if self.size == 1:
            return value
        import horovod.tensorflow as hvd

        return hvd.broadcast_object(value, root_rank=0)

    def broadcast_variables(self, variables: list) -> None:
        """Give every rank rank 0's variables."""
        if self.size > 1:
            import horovod.tensorflow as hvd

            hvd.broadcast_variables(variables, root_rank=0)

    def average_variables(self, variables: list) -> None:
        """Replace variables that ranks keep for themselves (BatchNorm statistics) by their mean over ranks."""
        if self.size > 1 and variables:
            import horovod.tensorflow as hvd

            means = hvd.grouped_allreduce([variable.value() for variable in variables], op=hvd.Average)
            for variable, mean in zip(variables, means, strict=True):
                variable.assign(mean)

    def barrier(self) -> None:
        """Wait until every rank is here."""
        self.sum(np.zeros(1))


def started_as_rank() -> bool:
    """Say whether a launcher (ours, srun's, horovodrun, mpirun) started this process as one rank of several."""
    return any(name in os.environ for name in _RANK_VARIABLES)


def join() -> World:
    """Join the world that the environment describes; without one, a world of one that needs no Horovod.

    Must run before TensorFlow makes its threads, since it binds the process to its rank's cores.
    """
    if CPUS_VARIABLE in os.environ:
        os.sched_setaffinity(0, {int(cpu) for cpu in os.environ[CPUS_VARIABLE].split(",")})
    if LAUNCHER_VARIABLE in os.environ:
        _die_with(int(os.environ[LAUNCHER_VARIABLE]))
    if not started_as_rank():
        return World()
    load_tensorflow()
    import horovod.tensorflow as hvd

    hvd.init()
    return World(rank=hvd.rank(), size=hvd.size(), local_rank=hvd.local_rank())


def _die_with(launcher: int) -> None:
    """Ask the kernel to kill this process when its launcher ends, however that ends."""
    set_parent_death_signal = 1  # PR_SET_PDEATHSIG of prctl(2)
    ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)
    if os.getppid() != launcher:  # it died before the request
        os._exit(1)
