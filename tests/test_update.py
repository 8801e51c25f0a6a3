"""One update, on a model of one layer, against what it should come to by hand."""

import numpy as np
import pytest

tf_keras = pytest.importorskip("tf_keras")

import tensorflow as tf  # noqa: E402

from distributed.world import World  # noqa: E402
from family.data.ontology import from_leaves  # noqa: E402
from family.data.pipeline import targets  # noqa: E402
from family.recipe import make_recipe  # noqa: E402
from family.training.losses import make_loss  # noqa: E402
from family.training.optimizers import Optimizer  # noqa: E402
from family.training.update import make_update  # noqa: E402

INPUTS = np.arange(12, dtype=np.float32).reshape(4, 3) / 10
LABELS = np.array([0, 1, 1, 0], np.int32)


def learner(**fields):
    tf_keras.utils.set_random_seed(0)
    model = tf_keras.Sequential([tf_keras.layers.Input((3,)), tf_keras.layers.Dense(2)])
    recipe = make_recipe({"optimizer": "sgd", "weight_decay": 0.0, "label_smoothing": 0.0, **fields})
    optimizer = Optimizer(recipe, model, model.trainable_variables, ema=False)
    optimizer.set_rate(0.1)
    loss = make_loss(recipe, from_leaves([("a", "A"), ("b", "B")]), LABELS)
    update = make_update(model, model.trainable_variables, optimizer, World(), recipe, loss)

    def take(step=0):
        return update(INPUTS, *targets(LABELS, 1.0), tf.constant(step), tf.constant(0), tf.constant(4), tf.zeros(3)).numpy()

    return model, optimizer, take


def test_an_update_tells_sums_over_rows_and_the_norm_of_the_gradient():
    model, _, take = learner()
    kernel, bias = (w.numpy().astype(np.float64) for w in model.weights)
    logits = INPUTS @ kernel + bias
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    error = (p - np.eye(2)[LABELS]) / 4
    norm = np.sqrt(((INPUTS.T @ error) ** 2).sum() + (error.sum(0) ** 2).sum())
    loss, right, rows, *_, found = take()
    assert (loss, rows, found) == pytest.approx((-np.log(p[range(4), LABELS]).sum(), 4, norm), rel=1e-5)
    assert right == (p.argmax(1) == LABELS).sum()


def test_a_scaled_loss_gives_the_same_update():
    (plain, _, take), (scaled, _, take_scaled) = learner(), learner(precision="mixed_float16")
    np.testing.assert_allclose(take(), take_scaled(), rtol=1e-5)
    for a, b in zip(plain.get_weights(), scaled.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


def test_a_gradient_too_large_for_the_scale_is_left_out_and_the_scale_halved():
    model, optimizer, take = learner(precision="mixed_float16")
    model.layers[-1].kernel.assign(np.full((3, 2), np.nan, np.float32))  # as an overflow in the backward pass would make it
    bias, scale = model.layers[-1].bias.numpy(), optimizer.state[-2]
    assert scale.numpy() == 2**15
    assert take()[-1] == 0 and scale.numpy() == 2**14
    np.testing.assert_array_equal(model.layers[-1].bias.numpy(), bias)
    scale.assign(1.0)
    assert not np.isfinite(take()[-1]), "nothing is left to halve: that is the training's fault"


def test_the_scale_of_the_loss_is_part_of_a_checkpoint():
    _, optimizer, _ = learner(precision="mixed_float16")
    _, plain, _ = learner()
    assert len(optimizer.state) == len(plain.state) + 2
