"""Pruning and clustering by TFMOT: fewer weights, or fewer values of weights, so that a file compresses. Neither makes a model faster here."""

import zlib
from collections.abc import Callable

import numpy as np
import tensorflow_model_optimization as tfmot
import tf_keras

from family.models.builders import rebuilt

_RAMP = 0.6  # of the updates, over which the share of pruned weights grows; the rest heals
_MASKS_EVERY = 20  # updates, in a long training


def compressible(model: tf_keras.Model) -> list[tf_keras.layers.Conv2D]:
    """Return the convolutions that hold most of the weights: not the first one, squeeze-and-excite, depthwise kernels, or the head."""
    plain = [layer for layer in model.layers if type(layer) is tf_keras.layers.Conv2D and "_se_" not in layer.name]
    return plain[1:]


class Pruned:
    """A copy of a model that trains while more and more of its smallest weights are held at 0.

    Args:
        model: of `build_variant`, trained.
        sparsity: the share of each kernel's weights that are 0 in the end.
        n_updates: forward passes of the training.
    """

    def __init__(self, model: tf_keras.Model, sparsity: float, n_updates: int):
        every = max(1, min(_MASKS_EVERY, int(_RAMP * n_updates) // 4))
        last = max(1, int(_RAMP * n_updates) // every) * every  # masks are made at multiples, and the last one has to be whole
        ramp = tfmot.sparsity.keras.PolynomialDecay(0.0, sparsity, begin_step=0, end_step=last, frequency=every)
        self._copy = _Copy(model, lambda layer: tfmot.sparsity.keras.prune_low_magnitude(layer, pruning_schedule=ramp))
        self.model = self._copy.model
        for wrapper in self._copy.wrappers:
            wrapper.pruning_step.assign(0)  # which TFMOT's callback of `fit` does; each forward pass counts one up

    def finish(self) -> None:
        """Give the weights back, with the masks applied to what the last update left."""
        for wrapper in self._copy.wrappers:
            for weights, mask, _ in wrapper.pruning_vars:
                weights.assign(weights * mask)
        self._copy.give_back()


class Clustered:
    """A copy of a model that trains while each kernel holds few values; which weight has which, and the values, learn.

    Args:
        model: of `build_variant`, trained.
        n_clusters: values of a kernel.
    """

    def __init__(self, model: tf_keras.Model, n_clusters: int):
        first = tfmot.clustering.keras.CentroidInitialization.KMEANS_PLUS_PLUS  # seeded by TFMOT
        self._copy = _Copy(model, lambda layer: tfmot.clustering.keras.cluster_weights(layer, number_of_clusters=n_clusters, cluster_centroids_init=first))
        self.model = self._copy.model

    def finish(self) -> None:
        """Give the weights back, each with its value."""
        for wrapper in self._copy.wrappers:
            wrapper.update_clustered_weights_associations()
            for name, variable in wrapper.original_clusterable_weights.items():
                variable.assign(getattr(wrapper.layer, name))
        self._copy.give_back()


class _Copy:
    """A copy of a model, its compressible layers wrapped under their own names, that can give its weights back."""

    def __init__(self, model: tf_keras.Model, wrap: Callable):
        chosen = {id(layer) for layer in compressible(model)}
        self.wrappers: list = []
        self._variables: list[tuple] = []  # a layer of the model, and the variables of its copy, which wrappers hide

        def replace(layer):
            copy = type(layer).from_config(layer.get_config())
            if layer.weights:
                copy.build(layer.input.shape)
                copy.set_weights(layer.get_weights())
                self._variables.append((layer, list(copy.weights)))
            if id(layer) not in chosen:
                return copy
            self.wrappers.append(wrap(copy))
            self.wrappers[-1]._name = layer.name  # TFMOT puts words before it, and blocks are known by names
            return self.wrappers[-1]

        self.model = rebuilt(model, replace)

    def give_back(self) -> None:
        for layer, variables in self._variables:
            layer.set_weights([variable.numpy() for variable in variables])


def describe(model: tf_keras.Model) -> dict:
    """Return what is left in the compressible kernels of a model.

    Returns:
        {"sparsity": share of weights that are 0, "most_values": of a kernel, "share_of_weights": that the kernels hold,
        "weights_mb", "compressed_mb": of all weights as float32, as they are and by zlib}.
    """
    kernels = [layer.get_weights()[0] for layer in compressible(model)]
    n = sum(kernel.size for kernel in kernels)
    arrays = [np.asarray(array, np.float32) for array in model.get_weights()]
    return {
        "sparsity": float(sum((kernel == 0).sum() for kernel in kernels) / n),
        "most_values": max(len(np.unique(kernel)) for kernel in kernels),
        "share_of_weights": float(n / sum(array.size for array in arrays)),
        "weights_mb": sum(array.nbytes for array in arrays) / 1e6,
        "compressed_mb": sum(len(zlib.compress(array.tobytes(), 6)) for array in arrays) / 1e6,
    }
