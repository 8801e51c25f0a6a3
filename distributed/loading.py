"""Load TensorFlow without the lines that its GPU libraries print on a machine without a GPU."""

import os
from collections.abc import Iterator
from contextlib import contextmanager


def load_tensorflow():
    """Import TensorFlow, quietly, and return it. Errors are exceptions and are not lost."""
    with _silent_stderr():
        import tensorflow as tf

        tf.config.list_physical_devices()  # the first look for GPUs prints too
    return tf


@contextmanager
def _silent_stderr() -> Iterator[None]:
    # The lines come from C++ before its log is set up, so only the file descriptor can be turned away.
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
