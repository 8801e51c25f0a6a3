"""The loss of a row: cross-entropy, with what recipes may add for long tails, for the tree, and for learning from a teacher."""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from family.data.ontology import Ontology
from family.data.order import expected_draws
from family.recipe import Recipe

_SMALLEST = 1e-20  # of a node's probability, whose logarithm is taken


def make_loss(recipe: Recipe, ontology: Ontology, labels: np.ndarray) -> Callable:
    """Return `loss(logits, labels, weights, teacher=None) -> float32 [n]`.

    Its arguments are float32 [n, n_classes], int32 [n, 2] and float32 [n, 2]: a row that is mixed of two has a label and a share of
    each, any other has (1, 0) as its shares, and a row that does not count has (0, 0); `teacher`, float32 [n, n_classes], holds the
    probabilities that a teacher gives at `distill_temperature`.

    Args:
        labels: int [n_rows], of all training rows: how often each class occurs.
    """
    # Of an epoch: with sampling, classes occur as often as they are drawn, and only what is left is to be made up for.
    draws = expected_draws(labels, recipe.sampling_power)
    counts = np.bincount(labels, weights=draws, minlength=len(ontology.leaves)).astype(np.float64)
    shift = tf.constant(recipe.logit_adjustment * np.log(np.maximum(counts, 1) / counts.sum()), tf.float32)
    class_weights = tf.constant(effective_number_weights(counts, recipe.class_balance), tf.float32)
    levels = inner_levels(ontology) if recipe.tree_weight else []

    def of_label(log_p, labels):
        hit = -tf.gather(log_p, labels, batch_dims=1)
        smooth = -tf.reduce_mean(log_p, axis=-1)
        loss = (1 - recipe.label_smoothing) * hit + recipe.label_smoothing * smooth
        for node_of, n_nodes in levels:
            log_nodes = log_of_nodes(log_p, node_of, n_nodes)
            loss += recipe.tree_weight / len(levels) * -tf.gather(log_nodes, tf.gather(node_of, labels), batch_dims=1)
        return loss * tf.gather(class_weights, labels) if recipe.class_balance else loss

    def loss(logits, labels, weights, teacher=None):
        log_p = tf.nn.log_softmax(logits + shift if recipe.logit_adjustment else logits)
        # The second label is there in mixed rows alone; elsewhere its share is 0.
        n_labels = 2 if recipe.mixup or recipe.cutmix else 1
        found = tf.add_n([weights[:, k] * of_label(log_p, labels[:, k]) for k in range(n_labels)])
        if teacher is None:
            return found
        rows = tf.reduce_sum(weights, -1)
        return (1 - recipe.distill_weight) * found + recipe.distill_weight * rows * distillation(
            logits, teacher, recipe.distill_temperature
        )

    return loss


def effective_number_weights(counts: np.ndarray, beta: float) -> np.ndarray:
    """Return float64 [n_classes]: the weight of a class by the effective number of its rows, with a mean of 1 over rows.

    (1 - beta) / (1 - beta^n): beta = 0 weighs rows alike, beta -> 1 classes alike. A class without rows gets 0.
    *Source*: Cui et al. 2019 (1901.05555); they norm the sum over classes, which would change the rate with the tail's length.
    """
    present = counts > 0
    weights = np.zeros(len(counts))
    weights[present] = (1 - beta) / (1 - beta ** counts[present])
    return weights * counts.sum() / (weights * counts).sum()


def inner_levels(ontology: Ontology) -> list[tuple[tf.Tensor, int]]:
    """Return, for each level at which leaves are gathered into nodes, (int32 [n_leaves] node of each leaf, number of nodes)."""
    levels = [ontology.level(level) for level in range(1, ontology.depth)]
    return [(tf.constant(node_of), len(ids)) for ids, node_of in levels if 1 < len(ids) < len(ontology.leaves)]


def log_of_nodes(log_p: tf.Tensor, node_of: tf.Tensor, n_nodes: int) -> tf.Tensor:
    """Return float32 [n, n_nodes]: log of the summed probability of each node's leaves."""
    sums = tf.math.unsorted_segment_sum(tf.transpose(tf.exp(log_p)), node_of, n_nodes)
    return tf.math.log(tf.maximum(tf.transpose(sums), _SMALLEST))


def distillation(logits: tf.Tensor, teacher: tf.Tensor, temperature: float) -> tf.Tensor:
    """Return float32 [n]: the divergence of the student from a teacher, both at a temperature, times its square.

    *Source*: Hinton et al. 2015 (1503.02531): with the square, its gradients are as large as those of labels at any temperature.
    """
    log_student = tf.nn.log_softmax(logits / temperature)
    own = tf.math.xlogy(teacher, teacher) - teacher * log_student
    return temperature**2 * tf.reduce_sum(own, -1)
