"""The blocks of a model, counted from the head down: what learns at one rate and starts to learn at one time."""

import tf_keras

from family.models.layer_names import block_of


def depths(model: tf_keras.Model) -> dict[str, int]:
    """Return layer name -> how many blocks its own is away from the head, whose layers have 0.

    A layer whose name tells no block belongs to the next one that is told on the way to the output, and to the head behind the last.
    """
    found, told = {}, ["head"]
    for layer in reversed(model.layers):  # Keras keeps them in the order of the graph, and blocks meet in one layer each
        block = block_of(layer.name) or told[-1]
        if block != told[-1]:
            told.append(block)
        found[layer.name] = len(told) - 1
    return found
