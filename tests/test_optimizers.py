"""Optimizers, rates by block and schedules, against computations in NumPy; frozen weights bit by bit; one killed training."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trainings import EXACT, events, family, kill, last_step, start, wait_until, weights_of

from family.recipe import OPTIMIZERS, make_recipe

tf_keras = pytest.importorskip("tf_keras")

import tensorflow as tf  # noqa: E402

from family.models.blocks import depths  # noqa: E402
from family.models.builders import build_variant, head_of  # noqa: E402
from family.models.layer_names import block_of  # noqa: E402
from family.training.optimizers import Optimizer, warn_of_short_ema, warn_of_sleepers  # noqa: E402
from family.training.rates import learning_rate, lowered  # noqa: E402
from family.training.saving import Position  # noqa: E402
from family.training.trainer import _note_epoch  # noqa: E402

NAMES = ("stem_conv", "block1a_conv", "block1b_conv", "top_conv", "logits")  # 4 to 0 blocks away from the head
RATE = 0.01


def small_model() -> tf_keras.Model:
    tf_keras.utils.set_random_seed(1)
    return tf_keras.Sequential([tf_keras.layers.Input((3,)), *(tf_keras.layers.Dense(3, name=name) for name in NAMES)])


SMALL = small_model()


def gradients_of(model: tf_keras.Model, n_steps: int) -> list[list[np.ndarray]]:
    """Return made-up gradients of some updates."""
    rng = np.random.default_rng(0)
    return [[rng.normal(size=v.shape).astype(np.float32) for v in model.trainable_variables] for _ in range(n_steps)]


def optimizer_of(model: tf_keras.Model, ema: bool = False, **fields) -> Optimizer:
    return Optimizer(make_recipe(fields), model, model.trainable_variables, ema)


def bits(variables: list) -> list[bytes]:
    return [variable.numpy().tobytes() for variable in variables]


def adam_step(gradients: list[np.ndarray], epsilon: float, outside: bool) -> np.ndarray:
    """Return Adam's step after the gradients of one array, in float64; `outside`: tf_keras adds epsilon to the root as it is kept."""
    m = sum(0.1 * 0.9 ** (len(gradients) - 1 - k) * g.astype(float) for k, g in enumerate(gradients))
    v = sum(0.001 * 0.999 ** (len(gradients) - 1 - k) * g.astype(float) ** 2 for k, g in enumerate(gradients))
    unbiased = np.sqrt(1 - 0.999 ** len(gradients))
    epsilon = epsilon / unbiased if outside else epsilon
    return m / (1 - 0.9 ** len(gradients)) / (np.sqrt(v) / unbiased + epsilon)


@pytest.mark.parametrize(("name", "deepest"), [("b0", 18), ("lite0", 18), ("v2-b0", 23)])
def test_the_blocks_of_an_efficientnet_are_counted_from_the_head(name, deepest):
    found = depths(build_variant(name, 5, 32))
    named = {layer: depth for layer, depth in found.items() if block_of(layer)}
    assert {block_of(layer) for layer in named} >= {"stem", "top", "block1a", "block2b", "block6d"}
    of_block = {}
    for layer, depth in named.items():
        of_block.setdefault(block_of(layer), set()).add(depth)
    assert all(len(distances) == 1 for distances in of_block.values()), "a block lies at one distance"
    blocks = sorted(block for block in of_block if block.startswith("block"))  # their names sort as they stand in the graph
    assert {block: of_block[block].pop() for block in blocks} == {block: len(blocks) + 1 - k for k, block in enumerate(blocks)}
    assert found["stem_conv"] == deepest == len(blocks) + 2
    assert found["top_conv"] == 1
    assert {found[layer] for layer in ("embedding", "head_dropout", "logits", "probabilities")} == {0}


def test_the_unnamed_layers_of_inception_resnet_v2_belong_to_the_block_that_they_lead_to():
    model = build_variant("inception-resnet-v2", 5, 75)
    before = {}  # layer -> the layers that lead to it, by the graph alone
    for layer in model.layers:
        parents = [] if isinstance(layer, tf_keras.layers.InputLayer) else layer.inbound_nodes[0].inbound_layers
        before[layer.name] = {layer.name}.union(*(before[parent.name] for parent in (parents if isinstance(parents, list) else [parents])))
    ends = ["max_pooling2d_1", "mixed_5b", *(f"block35_{k}_ac" for k in range(1, 11)), "mixed_6a", *(f"block17_{k}_ac" for k in range(1, 21)),
            "mixed_7a", *(f"block8_{k}_ac" for k in range(1, 10)), "custom_scale_layer_39", "conv_7b_ac", "probabilities"]  # fmt: skip
    wanted, done = {}, set()
    for k, end in enumerate(ends):
        wanted.update({name: len(ends) - 1 - k for name in before[end] - done})
        done |= before[end]
    assert depths(model) == wanted
    assert wanted["conv2d"] == 45 and sum(not block_of(layer.name) for layer in model.layers) > 500


def test_the_head_alone_is_one_group():
    head = head_of(build_variant("lite0", 5, 32))
    optimizer = optimizer_of(head, layer_decay=0.5, unfreeze_epochs=1.0)
    assert [(group.factor, group.frozen_epochs, len(group.variables)) for group in optimizer.groups] == [(1.0, 0.0, 2)]


@settings(max_examples=30)
@given(st.floats(0.01, 3), st.integers(1, 6), st.integers(1, 40), st.integers(1, 9), st.integers(0, 20))
def test_blocks_that_never_learn_are_counted(unfreeze_epochs, finetune_epochs, n_rows, batch_size, max_updates):
    fields = {"unfreeze_epochs": unfreeze_epochs, "finetune_epochs": finetune_epochs, "batch_size": batch_size, "max_updates": max_updates}
    optimizer, awake = optimizer_of(SMALL, **fields), set()
    an_epoch = -(-n_rows // batch_size)
    for done in range(min(finetune_epochs * an_epoch, max_updates or 10**9)):
        optimizer.set_rate(RATE, done / an_epoch)
        awake |= {k for k, group in enumerate(optimizer.groups) if group.optimizer.learning_rate.numpy() > 0}
    warning = warn_of_sleepers(make_recipe(fields), SMALL, n_rows)
    if len(awake) == len(NAMES):
        assert warning == ""
        return
    assert warning.startswith(f"warning: {len(NAMES) - len(awake)} of {len(NAMES)} blocks never learn")
    enough = float(re.search(r"unfreeze_epochs up to ([0-9.]+),", warning)[1])
    assert warn_of_sleepers(make_recipe({**fields, "unfreeze_epochs": enough}), SMALL, n_rows) == ""


def test_without_waiting_or_a_second_phase_nothing_sleeps():
    for fields in ({"unfreeze_epochs": 0.0}, {"unfreeze_epochs": 9.0, "finetune_epochs": 0}):
        assert warn_of_sleepers(make_recipe(fields), SMALL, 100) == ""


def test_lamb_takes_steps_as_long_as_the_array():
    model = small_model()
    optimizer, gradients = optimizer_of(model, optimizer="lamb", weight_decay=0.3), gradients_of(model, 4)
    places = [k for k, v in enumerate(model.trainable_variables) if "block1a" in v.name]
    kernel, bias = (model.trainable_variables[k].numpy().astype(float) for k in places)
    bias = bias + 0.5
    model.trainable_variables[places[1]].assign(bias)
    model.get_layer("top_conv").kernel.assign(np.zeros((3, 3)))  # which has no length: its step is not scaled
    for n, update in enumerate(gradients, 1):
        optimizer.set_rate(RATE)
        optimizer.apply([tf.constant(g) for g in update])
        step = adam_step([g[places[0]] for g in gradients[:n]], 1e-6, outside=False) + 0.3 * kernel
        kernel = kernel - RATE * np.linalg.norm(kernel) / np.linalg.norm(step) * step
        bias = bias - RATE * adam_step([g[places[1]] for g in gradients[:n]], 1e-6, outside=False)  # neither decayed nor scaled
        if n == 1:
            top = next(k for k, v in enumerate(model.trainable_variables) if "top_conv/kernel" in v.name)
            zeros = -RATE * adam_step([gradients[0][top]], 1e-6, outside=False)
            np.testing.assert_allclose(model.trainable_variables[top].numpy(), zeros, rtol=1e-5)
    np.testing.assert_allclose(model.trainable_variables[places[0]].numpy(), kernel, rtol=1e-5)
    np.testing.assert_allclose(model.trainable_variables[places[1]].numpy(), bias, rtol=1e-5)


def test_the_rate_and_the_decay_of_a_block_fall_with_its_distance_from_the_head():
    model = small_model()
    optimizer, gradients = optimizer_of(model, layer_decay=0.5, weight_decay=0.2), gradients_of(model, 3)
    rates = {name: RATE * 0.5**depth for name, depth in zip(NAMES, (4, 3, 2, 1, 0), strict=True)}
    wanted = [v.numpy().astype(float) for v in model.trainable_variables]
    for n, update in enumerate(gradients, 1):
        optimizer.set_rate(RATE)
        optimizer.apply([tf.constant(g) for g in update])
        for k, variable in enumerate(model.trainable_variables):
            rate = rates[variable.name.split("/")[0]]
            decayed = wanted[k] * (1 - 0.2 * rate) if "kernel" in variable.name else wanted[k]
            wanted[k] = decayed - rate * adam_step([g[k] for g in gradients[:n]], 1e-7, outside=True)
    assert len(optimizer.groups) == 5
    for found, array in zip(model.trainable_variables, wanted, strict=True):
        np.testing.assert_allclose(found.numpy(), array, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("ema", [False, True])
def test_without_rates_by_block_all_is_one_optimizer_of_keras_to_the_bit(ema):
    ours, theirs = small_model(), small_model()
    optimizer = optimizer_of(ours, ema, weight_decay=0.1, ema_decay=0.9 if ema else 0.0)
    keras = tf_keras.optimizers.AdamW(weight_decay=0.1, jit_compile=False, use_ema=ema, ema_momentum=0.9)
    keras.exclude_from_weight_decay(var_names=["bias"])
    for k, update in enumerate(gradients_of(ours, 5)):
        optimizer.set_rate(RATE / (k + 1), k)
        keras.learning_rate.assign(RATE / (k + 1))
        optimizer.apply([tf.constant(g) for g in update])
        keras.apply_gradients(zip([tf.constant(g) for g in update], theirs.trainable_variables, strict=True))
    assert bits(optimizer.state) == bits(keras.variables)
    optimizer.finalize()
    keras.finalize_variable_values(theirs.trainable_variables)
    assert bits(ours.trainable_variables) == bits(theirs.trainable_variables)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_block_that_waits_keeps_its_bits_and_then_learns(name):
    model = small_model()
    model.get_layer("stem_conv").bias.assign([-0.0, 0.0, 1.0])  # adding 0.0 would make the first one 0.0
    optimizer = optimizer_of(model, True, optimizer=name, unfreeze_epochs=0.5, layer_decay=0.9, weight_decay=0.1, ema_decay=0.9)
    apply = tf.function(optimizer.apply)
    first = bits(model.trainable_variables)
    learning = []
    for k, update in enumerate(gradients_of(model, 11)):
        before, states = bits(model.trainable_variables), [bits(group.optimizer.variables) for group in optimizer.groups]
        optimizer.set_rate(RATE, k / 4)
        apply([tf.constant(g) for g in update])
        n_learning = min(5, 1 + k // 2)  # one block more every half epoch, that is, every two of these updates
        after = bits(model.trainable_variables)
        n_frozen = 2 * (5 - n_learning)
        assert after[:n_frozen] == before[:n_frozen] == first[:n_frozen]
        assert all(a != b for a, b in zip(after[n_frozen:], before[n_frozen:], strict=True))
        moved = [state != bits(group.optimizer.variables) for state, group in zip(states, optimizer.groups, strict=True)]
        assert moved == [True] * n_learning + [False] * (5 - n_learning), "nor does what its optimizer remembers change"
        learning.append(n_learning)
    assert learning[0] == 1 and learning[-1] == 5
    assert apply.experimental_get_tracing_count() == 1, "setting rates and thawing must not trace anew"


def test_a_block_that_never_learned_ends_as_it_was_also_with_averages():
    model = small_model()
    optimizer = optimizer_of(model, True, unfreeze_epochs=1.0, ema_decay=0.9)
    first = bits(model.trainable_variables)
    kernel = model.get_layer("logits").kernel
    average = kernel.numpy().astype(float)
    for update in gradients_of(model, 7):
        optimizer.set_rate(RATE, 0.5)
        optimizer.apply([tf.constant(g) for g in update])
        average = 0.9 * average + 0.1 * kernel.numpy()
    assert not np.allclose(kernel.numpy(), average, rtol=1e-3)
    optimizer.finalize()
    assert bits(model.trainable_variables)[:8] == first[:8]
    np.testing.assert_allclose(kernel.numpy(), average, rtol=1e-5)


def test_a_gradient_that_is_no_number_leaves_all_groups_as_they_are():
    model = small_model()
    optimizer = optimizer_of(model, True, precision="mixed_float16", layer_decay=0.5, weight_decay=0.1, ema_decay=0.9)
    optimizer.set_rate(RATE)
    good = [tf.constant(g) * 2.0**15 for g in gradients_of(model, 1)[0]]
    *state, scale, n_good = optimizer.state
    before = bits([*model.trainable_variables, *state])
    bad = [*good[:-1], tf.fill(good[-1].shape, np.inf)]
    assert tf.function(optimizer.apply)(bad).numpy() == 0
    assert bits([*model.trainable_variables, *state]) == before
    assert (scale.numpy(), n_good.numpy()) == (2**14, 0)
    norm = np.sqrt(sum(float((g.numpy() ** 2).sum()) for g in good)) / 2**14
    assert optimizer.apply(good).numpy() == pytest.approx(norm, rel=1e-5)
    assert n_good.numpy() == 1 and all(a != b for a, b in zip(bits(model.trainable_variables), before, strict=False))


def test_the_scale_of_the_loss_doubles_after_two_thousand_updates_and_never_passes_float32():
    model = small_model()
    optimizer, good = optimizer_of(model, precision="mixed_float16"), [tf.constant(g) for g in gradients_of(model, 1)[0]]
    scale, n_good = optimizer.state[-2:]
    n_good.assign(1998)
    optimizer.apply(good)
    assert (scale.numpy(), n_good.numpy()) == (2**15, 1999)
    optimizer.apply(good)
    assert (scale.numpy(), n_good.numpy()) == (2**16, 0)
    assert optimizer.scaled(tf.constant(3.0)).numpy() == 3 * 2**16
    scale.assign(2.0**127)
    n_good.assign(1999)
    optimizer.apply(good)
    assert scale.numpy() == 2.0**127


def test_a_step_lowers_the_rate_every_so_many_epochs():
    recipe = make_recipe({"schedule": "step", "step_epochs": 1.5, "step_factor": 0.5})
    assert [lowered(1.0, "step", epochs, 9, recipe) for epochs in (0, 1.4, 1.5, 2.9, 3.0)] == [1, 1, 0.5, 0.5, 0.25]
    assert lowered(1.0, "plateau", 9.0, 3, recipe) == 0.125
    assert lowered(1.0, "cosine", 9.0, 3, recipe) == lowered(1.0, "constant", 9.0, 3, recipe) == 1.0
    assert [learning_rate(k, 100, 0.256, 128, 4, "step") for k in (3, 4, 99)] == pytest.approx([0.128 * 4 / 5, 0.128, 0.128])


def test_the_rate_falls_where_validation_accuracy_stays():
    recipe, position, found = make_recipe({"schedule": "plateau", "plateau_rate_epochs": 2}), Position(), []
    for accuracy in (0.1, 0.2, 0.2, 0.2, 0.2, 0.3, 0.3, 0.2, 0.4):
        _note_epoch(position, {"accuracy": 0.0, "val_accuracy": accuracy}, recipe)
        found.append(position.n_plateaus)
    assert found == [0, 0, 0, 1, 1, 1, 1, 2, 2]
    other = Position()
    for _ in range(9):
        _note_epoch(other, {"accuracy": 0.0, "val_accuracy": 0.1}, make_recipe({"schedule": "step"}))
    assert other.n_plateaus == 0


def test_a_killed_run_of_waiting_blocks_and_a_falling_rate_resumes_to_the_same_bits(tmp_path):
    dataset, straight, run = tmp_path / "dataset", tmp_path / "straight", tmp_path / "run"
    family("data", "synth", dataset, "--listings", 80, "--categories", 12)
    fields = {"finetune_epochs": 8, "warmup_epochs": 0, "schedule": "plateau", "plateau_rate_epochs": 1, "step_factor": 0.5,
              "layer_decay": 0.8, "unfreeze_epochs": 0.35, "ema_decay": 0.9}  # fmt: skip
    words = [*EXACT, *(word for key, value in fields.items() for word in ("--set", f"{key}={value}"))]
    family("train", dataset, "--out", straight, *words)
    epochs = events(straight, "epoch")
    lower = next(row["step"] for row in epochs if row["rate"] < epochs[0]["rate"])  # the last step of the first epoch at a lower rate
    child = start("train", dataset, "--out", run, *words, "--set", "checkpoint_interval_s=0.001")
    wait_until(lambda: last_step(run, "checkpoint") > lower, child, "a checkpoint at a lower rate")
    kill(child)
    family("train", dataset, "--out", run, *words, "--resume")
    (resumed,) = events(run, "resumed")
    assert lower < resumed["step"] < epochs[-2]["step"], "it was killed after the rate fell and before all blocks learned"
    ones, found = weights_of(straight), weights_of(run)
    assert ones.keys() == found.keys()
    assert all(np.array_equal(ones[name], found[name]) for name in ones), "the resumed run differs"
    assert [row["rate"] for row in events(run, "epoch")[-2:]] == [row["rate"] for row in epochs[-2:]]


@pytest.mark.parametrize(("n_rows", "warned"), [(500, True), (5000, False)])
def test_a_mean_that_is_mostly_the_first_weights_is_told(n_rows, warned):
    fields = {"ema_decay": 0.998, "finetune_epochs": 8}
    warning = warn_of_short_ema(make_recipe(fields), n_rows)
    assert bool(warning) == warned
    if warned:
        assert f"{0.998 ** 128:.0%} of the mean" in warning
        enough = float(warning.split("up to ")[1].split(",")[0])
        assert warn_of_short_ema(make_recipe({**fields, "ema_decay": enough}), n_rows) == ""
    assert warn_of_short_ema(make_recipe({**fields, "ema_decay": 0.0}), n_rows) == ""
