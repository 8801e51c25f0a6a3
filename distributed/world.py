"""The world that a process trains in: its rank, the number of ranks, and what they say to one another."""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class World:
    """One process among `size`; the sums and broadcasts of a world of one are the values themselves."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    leave: Callable[[], None] = lambda: None  # to be called when this rank ends because it has nothing left to do

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def sum_gradients(self, gradients: list, told, compression: str = "none") -> tuple[list, object]:
        """Return the gradients and what ranks tell one another, both summed over ranks. Works inside `tf.function`.

        Args:
            told: float32 [n]; travels with the gradients, so that agreeing costs no message.
            compression: `fp16` halves the bytes of the gradients, and of nothing else.
        """
        if self.size == 1:
            return gradients, told
        import horovod.tensorflow as hvd

        # Groups of the model's order, never of arrival: the order of sums must not depend on timing.
        if compression == "none":
            *gradients, told = hvd.grouped_allreduce([*gradients, told], op=hvd.Sum)
            return gradients, told
        packed = [hvd.Compression.fp16.compress(gradient) for gradient in gradients]
        sums = hvd.grouped_allreduce([tensor for tensor, _ in packed], op=hvd.Sum)
        unpacked = [hvd.Compression.fp16.decompress(tensor, kind) for tensor, (_, kind) in zip(sums, packed, strict=True)]
        return unpacked, hvd.allreduce(told, op=hvd.Sum)

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

    def gather(self, value) -> list:
        """Return every rank's value (anything that pickles), by rank."""
        if self.size == 1:
            return [value]
        import horovod.tensorflow as hvd

        return hvd.allgather_object(value)

    def broadcast_variables(self, variables: list) -> None:
        """Give every rank rank 0's variables."""
        if self.size > 1:
            import horovod.tensorflow as hvd

            hvd.broadcast_variables(variables, root_rank=0)

    def means(self, variables: list) -> list:
        """Return the means over ranks of variables that ranks keep for themselves (BatchNorm statistics)."""
        values = [variable.value() for variable in variables]
        if self.size == 1 or not values:
            return values
        import horovod.tensorflow as hvd

        return hvd.grouped_allreduce(values, op=hvd.Average)

    def barrier(self) -> None:
        """Wait until every rank is here."""
        self.sum(np.zeros(1))


def say_lost(rank: int, host: str, what: str, lines: list[str]) -> None:
    """Name a rank that was lost, with the last lines that it wrote."""
    where = f" on {host}" if host else ""
    print(f"rank {rank}{where} {what}; the job ends", file=sys.stderr)
    print("\n".join(f"  rank {rank}: {line}" for line in lines), file=sys.stderr, flush=True)


def last_lines(log: os.PathLike, n_lines: int = 12) -> list[str]:
    """Return the last lines of a rank's log; none where there is no log."""
    try:
        with open(log, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 16_384))
            return file.read().decode("utf-8", "replace").splitlines()[-n_lines:]
    except OSError:
        return []
