"""Losses against NumPy, on random trees."""

import numpy as np
import pytest

pytest.importorskip("tf_keras")

import tensorflow as tf  # noqa: E402

from family.data.ontology import from_leaves  # noqa: E402
from family.data.pipeline import targets  # noqa: E402
from family.recipe import make_recipe  # noqa: E402
from family.training.losses import effective_number_weights, make_loss  # noqa: E402

TREE = from_leaves([("a", "Animals/Cats/Tabby"), ("b", "Animals/Cats/Siamese"), ("c", "Animals/Dogs"), ("d", "Cars/Vans"), ("e", "Books")])
RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(7, 5)).astype(np.float32) * 3
LABELS = np.array([0, 1, 2, 3, 4, 0, 2])
SEEN = np.repeat(np.arange(5), [50, 20, 5, 2, 1])  # the classes of the training rows: Books, Cats/Siamese, ... by path


def losses(labels=LABELS, weight=1.0, teacher=None, **fields):
    loss = make_loss(make_recipe({"label_smoothing": 0.0, **fields}), TREE, SEEN)
    return loss(tf.constant(LOGITS), *map(tf.constant, targets(labels.astype(np.int32), weight)), teacher).numpy()


def log_softmax(x):
    x = x.astype(np.float64)
    x = x - x.max(1, keepdims=True)
    return x - np.log(np.exp(x).sum(1, keepdims=True))


def hits(log_p, labels=LABELS):
    return -log_p[np.arange(len(labels)), labels]


def test_plain_and_smoothed_cross_entropy():
    log_p = log_softmax(LOGITS)
    np.testing.assert_allclose(losses(), hits(log_p), rtol=1e-5)
    np.testing.assert_allclose(losses(label_smoothing=0.1), 0.9 * hits(log_p) + 0.1 * -log_p.mean(1), rtol=1e-5)
    assert (losses(weight=0.0) == 0).all()


def test_logit_adjustment_adds_the_log_of_the_share():
    share = np.bincount(SEEN) / len(SEEN)
    np.testing.assert_allclose(losses(logit_adjustment=0.7), hits(log_softmax(LOGITS + 0.7 * np.log(share))), rtol=1e-5)


def test_effective_numbers_weigh_rare_classes_more_and_rows_as_much_as_before():
    counts = np.bincount(SEEN)
    weights = effective_number_weights(counts.astype(float), 0.9)
    ratio = (1 - 0.9**50) / (1 - 0.9**1)
    assert weights[4] / weights[0] == pytest.approx(ratio)
    assert (weights * counts).sum() == pytest.approx(len(SEEN))
    np.testing.assert_allclose(losses(class_balance=0.9), hits(log_softmax(LOGITS)) * weights[LABELS], rtol=1e-5)
    assert effective_number_weights(np.array([3.0, 0.0]), 0.9)[1] == 0


def test_the_tree_adds_the_mean_cross_entropy_of_the_levels_above_the_leaves():
    log_p = log_softmax(LOGITS)
    expected = hits(log_p)
    leaves = [TREE.path_of[leaf].split("/") for leaf in TREE.leaves]
    for level in (1, 2):
        for row, label in enumerate(LABELS):
            same = [path[:level] == leaves[label][:level] for path in leaves]
            expected[row] += 0.6 / 2 * -np.log(np.exp(log_p[row])[same].sum())
    np.testing.assert_allclose(losses(tree_weight=0.6), expected, rtol=1e-4)


def test_a_flat_tree_has_no_levels_to_add():
    flat = from_leaves([(letter, letter.upper()) for letter in "abcde"])
    found = [
        make_loss(make_recipe({"tree_weight": w}), flat, SEEN)(tf.constant(LOGITS), *targets(LABELS.astype(np.int32), 1.0))
        for w in (0.0, 1.0)
    ]
    np.testing.assert_array_equal(*found)


def test_distillation_is_the_divergence_from_the_teacher_and_vanishes_where_they_agree():
    t = 2.0
    teacher = np.exp(log_softmax(RNG.normal(size=(7, 5)) * 2 / t))
    divergence = t**2 * (teacher * (np.log(teacher) - log_softmax(LOGITS / t))).sum(1)
    found = losses(teacher=tf.constant(teacher, tf.float32), distill_weight=0.3)
    np.testing.assert_allclose(found, 0.7 * hits(log_softmax(LOGITS)) + 0.3 * divergence, rtol=1e-4)
    own = tf.nn.softmax(LOGITS / t)
    np.testing.assert_allclose(losses(teacher=own, distill_weight=1.0), 0, atol=1e-5)


def test_sure_teachers_and_sure_students_give_numbers():
    sure = tf.one_hot(LABELS, 5)
    loss = make_loss(make_recipe({"distill_weight": 1.0, "tree_weight": 1.0}), TREE, SEEN)
    logits = tf.Variable(tf.one_hot((LABELS + 1) % 5, 5) * 1e4)
    with tf.GradientTape() as tape:
        found = loss(logits, *targets(LABELS.astype(np.int32), 1.0), sure)
    assert np.isfinite(found).all() and np.isfinite(tape.gradient(found, logits)).all()


def test_sampling_leaves_less_to_make_up_for():
    balanced = losses(sampling_power=0.0, logit_adjustment=1.0)
    np.testing.assert_allclose(balanced, hits(log_softmax(LOGITS)), rtol=1e-5)
    np.testing.assert_allclose(losses(sampling_power=0.0, class_balance=0.99), hits(log_softmax(LOGITS)), rtol=1e-5)
