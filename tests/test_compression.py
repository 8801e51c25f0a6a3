"""Quantization-aware training, pruning and clustering: the copies that train, and whole command lines at one and two ranks."""

import json
from pathlib import Path

import numpy as np
import pytest
from trainings import EXACT, events, family, weights_of

from benchmarks.studies import compressing
from family.recipe import make_recipe, read_recipe

tf = pytest.importorskip("tensorflow", reason="TensorFlow is not installed")

import tf_keras  # noqa: E402

from export.learned import quantize_learned  # noqa: E402
from export.onnx import convert  # noqa: E402
from export.proof import prove, why_not_int8  # noqa: E402
from export.runtime import run_unfused  # noqa: E402
from family.compression import command  # noqa: E402
from family.compression.quantizing import GAIN, ChannelRounding, LearnedRange, Quantized, calibrate  # noqa: E402
from family.compression.sparse import Clustered, Pruned, compressible, describe  # noqa: E402
from family.errors import Failure, UserError  # noqa: E402
from family.evaluation.calibration import at_temperature  # noqa: E402
from family.models.builders import build_variant, logits_of  # noqa: E402
from family.models.draws import RowDropout  # noqa: E402
from family.training.optimizers import Optimizer  # noqa: E402
from family.training.runs import load_calibrated, load_run  # noqa: E402

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (8, 64, 64, 3), np.uint8)


def trained(variant: str, px: int = 64) -> tf_keras.Model:
    """Return a model whose BatchNorm has the statistics of images, and scales and offsets that are none of the first ones."""
    tf_keras.utils.set_random_seed(0)
    model = build_variant(variant, 5, px, dropout=0.0, drop_connect=0.0)
    for layer in model.layers:
        if isinstance(layer, tf_keras.layers.BatchNormalization):
            n = layer.beta.shape[0]
            layer.momentum = 0.0
            layer.set_weights([*([RNG.uniform(0.8, 1.2, n)] if layer.scale else []), RNG.normal(0, 0.1, n), *layer.get_weights()[-2:]])
    model(RNG.integers(0, 256, (16, px, px, 3)).astype(np.float32), training=True)
    return model


def answers(model, images: np.ndarray = IMAGES) -> np.ndarray:
    return model(images.astype(np.float32), training=False).numpy()


@pytest.mark.parametrize("is_depthwise", [False, True])
def test_weights_are_rounded_by_channel_as_onnx_runtime_rounds_them(is_depthwise):
    weights = RNG.normal(0, 1, (3, 3, 7, 1) if is_depthwise else (3, 3, 4, 7)).astype(np.float32)
    by_channel = weights[..., 0] if is_depthwise else weights
    scale = np.abs(by_channel).max((0, 1) if is_depthwise else (0, 1, 2)) / 127
    wanted = np.round(by_channel / scale) * scale
    found = ChannelRounding(is_depthwise)(tf.constant(weights), True, {}).numpy()
    np.testing.assert_allclose(found[..., 0] if is_depthwise else found, wanted, atol=1e-5)


def test_a_range_learns_from_what_lies_outside_and_zero_stays():
    ends = {"low": tf.Variable(0.0), "high": tf.Variable(0.0)}
    range_ = LearnedRange(0.0, 2.0)
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(range_(tf.constant([0.5, 1.0, 3.0, 5.0]), True, ends))
    low, high = tape.gradient(total, [ends["low"], ends["high"]])
    assert low.numpy() == 0 and high.numpy() == pytest.approx(2 * 2.0 * GAIN), "two values stand at the end, which is 2 exp(GAIN t)"
    ends["high"].assign(0.01)
    assert [float(end) for end in range_.ends(ends)] == pytest.approx([0.0, 2 * np.exp(0.01 * GAIN)])


def test_ranges_hold_all_but_one_value_in_100000_and_zero():
    image = tf_keras.layers.Input((64, 64, 3))
    probe = tf_keras.Model(image, {"same": tf_keras.layers.Rescaling(1.0)(image), "above": tf_keras.layers.Rescaling(1.0, 5.0)(image)})
    images = np.full((20, 64, 64, 3), 100, np.uint8)
    images[0, 0, 0] = 255  # 3 of 245,760 values: 1.2 in 100,000
    found = calibrate(probe, images)
    assert found["same"] == (0.0, pytest.approx(255, abs=0.1)) and found["above"] == (0.0, pytest.approx(260, abs=0.1))
    images[0, 0, 0, 1:] = 100  # one: 0.4 in 100,000
    assert calibrate(probe, images)["same"] == (0.0, pytest.approx(100, abs=0.2))


@pytest.mark.parametrize("variant", ["lite0", "b0", "v2-b0", "inception-resnet-v2"])
def test_batchnorm_is_folded_and_given_back(variant):
    px = 96 if variant == "inception-resnet-v2" else 64
    model, images = trained(variant, px), RNG.integers(0, 256, (2, px, px, 3), np.uint8)
    logits = logits_of(model)
    before = answers(logits, images)
    copy = Quantized(model, images)
    rounded = [layer.name for layer in copy.model.layers if getattr(getattr(layer, "quantize_config", None), "kernel", None)]
    weighted = [layer for layer in model.layers if isinstance(layer, (tf_keras.layers.Conv2D, tf_keras.layers.DepthwiseConv2D, tf_keras.layers.Dense))]
    assert len(rounded) == len(weighted) - 1, "all but the first convolution"
    assert np.abs(answers(logits_of(copy.model), images) - before).max() > 0.01 * np.abs(before).max(), "it rounds"
    for layer in model.layers:  # what comes back comes from the copy
        layer.set_weights([np.zeros_like(array) for array in layer.get_weights()])
    copy.finish()
    # A random model makes much of rounding: what is given back differs by 1e-7 of each weight.
    np.testing.assert_allclose(answers(logits, images), before, atol=1e-3 * np.abs(before).max())


def small_network(activation: str) -> tf_keras.Model:
    """Return a network of every kind of layer that the variants have, but few: through a deep one of random weights any rounding grows to anything."""
    layers = tf_keras.layers
    tf_keras.utils.set_random_seed(1)

    def conv(x, name: str, n: int, size: int = 3, **more):
        x = layers.Conv2D(n, size, padding="same", use_bias=False, name=f"{name}_conv", **more)(x)
        return layers.BatchNormalization(name=f"{name}_bn", momentum=0.0)(x)

    image = layers.Input((32, 32, 3), name="image")
    x = layers.Rescaling(1 / 64, -2.0, name="preprocessing")(image)
    shortcut = layers.Activation(activation, name="stem_activation")(conv(x, "stem", 8, strides=2))
    x = layers.DepthwiseConv2D(3, padding="same", use_bias=False, name="block1a_dwconv")(shortcut)
    x = layers.Activation(activation, name="block1a_activation")(layers.BatchNormalization(name="block1a_bn", momentum=0.0)(x))
    gate = layers.GlobalAveragePooling2D(keepdims=True, name="block1a_se_squeeze")(x)
    gate = layers.Conv2D(4, 1, activation=activation, name="block1a_se_reduce")(gate)
    gate = layers.Conv2D(8, 1, activation="sigmoid", name="block1a_se_expand")(gate)
    x = conv(layers.Multiply(name="block1a_se_excite")([x, gate]), "block1a_project", 8, 1)
    x = layers.Add(name="block1a_add")([RowDropout(0.2, name="block1a_drop")(x), shortcut])
    x = layers.Concatenate(name="mixed")([x, layers.MaxPooling2D(3, strides=1, padding="same", name="mixed_pool")(x)])
    x = layers.MaxPooling2D(2, name="pool")(x)
    embedding = layers.GlobalAveragePooling2D(name="embedding")(layers.Activation(activation, name="top_activation")(conv(x, "top", 32, 1)))
    logits = layers.Dense(5, name="logits", bias_initializer="random_normal")(embedding)
    model = tf_keras.Model(image, layers.Softmax(name="probabilities")(logits))
    for layer in model.layers:
        layer.rate = 0.0
    model(RNG.integers(0, 256, (32, 32, 32, 3)).astype(np.float32), training=True)
    return model


@pytest.mark.parametrize("activation", ["swish", "relu6"])
def test_the_int8_file_answers_as_what_was_trained(activation, tmp_path, monkeypatch):
    """As a processor with VNNI gets it: where 7 bits are what it can add, they are not what was trained with."""
    monkeypatch.setattr("export.learned.cpu_flags", lambda: {"avx512_vnni"})
    model, images = small_network(activation), RNG.integers(0, 256, (64, 32, 32, 3), np.uint8)
    copy = Quantized(model, images)
    emulated = answers(copy.model, images)
    copy.finish()
    convert(model, tmp_path / "fp32.onnx")
    made = quantize_learned(tmp_path / "fp32.onnx", tmp_path / "int8.onnx", copy.ranges())
    assert made["convolutions_in_float"] == 1 and made["ranges"] == "learned"
    assert why_not_int8(prove(tmp_path / "int8.onnx"), 1) == ""
    int8, fp32 = (run_unfused(tmp_path / f"{name}.onnx", images)[0] for name in ("int8", "fp32"))
    assert np.abs(int8 - emulated).mean() < 0.5 * np.abs(int8 - fp32).mean(), "its roundings are those that were trained with"
    ranges = copy.ranges()
    del ranges["block1a_add"]
    with pytest.raises(Failure, match="block1a_add"):
        quantize_learned(tmp_path / "fp32.onnx", tmp_path / "other.onnx", ranges)


def test_ranges_do_not_decay():
    copy = Quantized(trained("lite0"), IMAGES)
    variables = copy.model.trainable_variables
    optimizer = Optimizer(make_recipe({"weight_decay": 0.5, "compression": "qat", "head_epochs": 0}), copy.model, variables, ema=False)
    ranges = [variable for variable in variables if "range_" in variable.name]
    for variable in ranges:
        variable.assign(0.1)
    optimizer.set_rate(0.01)
    optimizer.apply([tf.zeros_like(variable) for variable in variables])
    assert len(ranges) > 50 and all(variable.numpy() == np.float32(0.1) for variable in ranges)


def learn(model: tf_keras.Model, n: int) -> None:
    """Change all weights of a copy as an update does."""
    for _ in range(n):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(model(IMAGES.astype(np.float32), training=True) - 0.2))
        for variable, gradient in zip(model.trainable_variables, tape.gradient(loss, model.trainable_variables), strict=True):
            if gradient is not None:
                variable.assign_sub(0.01 * tf.sign(gradient))


def test_pruned_weights_are_zero_in_the_end():
    model = trained("lite0")
    copy = Pruned(model, 0.6, 10)
    step = tf.function(lambda: learn(copy.model, 1))
    for _ in range(10):
        step()
    copy.finish()
    found = describe(model)
    assert found["sparsity"] == pytest.approx(0.6, abs=0.01) and found["share_of_weights"] > 0.8
    assert found["compressed_mb"] < 0.65 * found["weights_mb"]
    assert model.get_layer("stem_conv").get_weights()[0].all(), "the first convolution is left alone"
    np.testing.assert_allclose(answers(model), answers(copy.model), atol=1e-5)


def test_clustered_kernels_have_few_values():
    model = trained("lite0")
    copy = Clustered(model, 8)
    step = tf.function(lambda: learn(copy.model, 1))
    step()
    copy.finish()
    found = describe(model)
    assert found["most_values"] == 8 and len(compressible(model)) > 25
    assert found["compressed_mb"] < 0.4 * found["weights_mb"]
    np.testing.assert_allclose(answers(model), answers(copy.model), atol=1e-5)


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A dataset and a run."""
    place = tmp_path_factory.mktemp("compression")
    family("data", "synth", place / "data", "--listings", 80, "--categories", 12)
    family("train", place / "data", "--out", place / "run", *EXACT, "--set", "finetune_epochs=2", "--set", "label=small")
    return place


SHORT = ["--set", "deterministic=true", "--set", "finetune_epochs=1", "--set", "batch_size=16"]


def test_two_ranks_compress_as_one_does_and_the_bundle_has_the_learned_ranges(place):
    words = ["compress", place / "run", place / "data", "--method", "qat", *SHORT]
    family(*words, "--out", place / "one")
    family(*words, "--out", place / "two", "--ranks", 2)
    one, two = (json.loads((place / name / "card.json").read_text()) for name in ("one", "two"))
    assert one["name"] == "lite0-32-general-small.qat" and one["compression"]["method"] == "qat" and one["training"]["teachers"]
    assert events(place / "one", "epoch")[0]["loss"] == pytest.approx(events(place / "two", "epoch")[0]["loss"], rel=1e-3)
    ranges, others = (card["compression"]["ranges"] for card in (one, two))
    assert ranges.keys() == others.keys() and all(ranges[name] == pytest.approx(others[name], rel=1e-3, abs=1e-6) for name in ranges)
    assert "already done" in family(*words, "--out", place / "one").stdout
    learned, told = ranges["logits"], load_calibrated(place / "one")[1]
    assert told["compression"]["ranges"]["logits"] == pytest.approx([end / one["temperature"] for end in learned]), "of logits that it divides"
    family("export", place / "one", "--out", place / "bundle", "--schemes", "fp32,int8", "--max-drop", 100)
    made = json.loads((place / "bundle" / "card.json").read_text())["schemes"]["int8"]["made"]
    assert made["ranges"] == "learned" and made["n_ranges"] > 50
    family("verify", place / "bundle")


def test_a_run_answers_with_its_temperature(place):
    (model, card), (calibrated, told) = load_run(place / "run"), load_calibrated(place / "run")
    assert told["temperature_inside"] == card["temperature"] != 1 and told["temperature"] == 1
    images = RNG.integers(0, 256, (4, 32, 32, 3), np.uint8)
    np.testing.assert_allclose(answers(calibrated, images), at_temperature(answers(model, images), card["temperature"]), atol=1e-6)


@pytest.mark.parametrize("method, name", [("prune", "pruned"), ("cluster", "clustered")])
def test_a_compressed_run_is_a_run(place, method, name):
    out = place / name
    family("compress", place / "run", place / "data", "--out", out, "--method", method, *SHORT)
    card = json.loads((out / "card.json").read_text())
    assert card["name"] == f"lite0-32-general-small.{name}"
    told = card["compression"]
    assert told["sparsity"] == pytest.approx(0.7, abs=0.01) if method == "prune" else told["most_values"] <= 16
    assert told["compressed_mb"] < 0.7 * told["compressed_mb_before"]
    kernels = [array for key, array in weights_of(out).items() if key.endswith("block6b_expand_conv/kernel:0")]
    assert len(kernels) == 1 and ((kernels[0] == 0).mean() > 0.69 if method == "prune" else len(np.unique(kernels[0])) <= 16)
    assert "lite0" in family("show", out).stdout


def test_a_compressed_run_keeps_the_activation_of_its_own(place, tmp_path):
    card = json.loads((place / "run" / "card.json").read_text())
    for activation in ("relu6", "hard-swish"):
        (tmp_path / activation).mkdir()
        (tmp_path / activation / "weights.h5").touch()
        (tmp_path / activation / "card.json").write_text(json.dumps({**card, "variant": "b0", "activation": activation}))
    words = {"dataset": place / "data", "out": tmp_path, "method": "qat", "recipe": None, "scope": None, "ranks": 1, "resume": False, "settings": [],
             "fresh": False}  # fmt: skip
    args = command.as_training(command.argparse.Namespace(run_folder=tmp_path / "relu6", **words))
    assert "activation=relu6" in args.settings and "label=small.qat" in args.settings and args.teacher == [tmp_path / "relu6"]
    with pytest.raises(UserError, match="hard-swish"):
        command.as_training(command.argparse.Namespace(run_folder=tmp_path / "hard-swish", **words))


def test_what_cannot_be_compressed_is_refused(place, tmp_path):
    said = family("train", place / "data", "--out", tmp_path / "run", *EXACT, "--set", "compression=qat", code=2).stderr
    assert "wants a trained run" in said and "family compress RUN" in said
    said = family("compress", place / "data", place / "data", "--out", tmp_path / "run", "--method", "qat", code=2).stderr
    assert "card.json" in said
    for wrong, told in ((["head_epochs=1"], "head_epochs has to be 0"), (["precision=mixed_bfloat16"], "rounds in float32"), (["n_clusters=1"], "n_clusters")):
        with pytest.raises(UserError, match=told):
            read_recipe("qat", wrong)
    for wrong in ("weights_kept=best", "val_patience=1"):
        with pytest.raises(UserError, match="weights_kept at last"):
            read_recipe("prune", [wrong])
    words = ["compress", place / "run", place / "data", "--out", tmp_path / "run", "--method", "qat"]
    assert "leave --set compression out" in family(*words, "--set", "compression=prune", code=2).stderr


def test_a_comparison_trains_exports_and_evaluates_every_arm(tmp_path):
    run = tmp_path / "v2-b0-general"
    run.mkdir()
    card = {"schema": 1, "variant": "v2-b0", "resolution_px": 128, "scope": "general", "name": "v2-b0-128-general",
            "classes": [], "paths": [], "preprocessing": {"resolution_px": 128, "aspect": "stretch", "filter": "bilinear"}}  # fmt: skip
    (run / "card.json").write_text(json.dumps(card))
    args = compressing.argparse.Namespace(dataset=Path("data"), run=[run], work=tmp_path / "work", arms="longer,qat,prune", seeds=2, settings=["a=1"])
    names = {run: compressing.names_of(run, args)}
    assert names[run] == {"as trained": ["v2-b0-general"], "longer": ["v2-b0-general-longer-0", "v2-b0-general-longer-1"],
                          "qat": ["v2-b0-general-qat-0", "v2-b0-general-qat-1"], "prune": ["v2-b0-general-prune-0"]}  # fmt: skip
    found = [step.words for step in compressing.steps(args, names)]
    assert [words[0] for words in found] == ["train"] * 2 + ["compress"] * 3 + ["export"] * 6
    bundle = tmp_path / "work" / "bundles" / "a"
    assert compressing.evaluation(args, bundle, "int8").words[:5] == ("evaluate", str(bundle), "data", "--scheme", "int8")
    longer = " ".join(found[0])
    assert "--recipe qat" in longer and "compression= " in longer and longer.endswith("--set seed=0 --set a=1") and f"--teacher {run}" in longer
    accuracy = {"top1": {"micro": 0.9, "macro": 0.8}, "levels": {"1": {"micro": 0.95, "macro": 0.85}}, "zipped_mb": 2.0}
    change = {"points": -0.5, "interval": [-1.0, 0.1], "shown": False}
    rows = [{"compression": {"sparsity": 0.7, "most_values": 99}, "fp32": accuracy, "int8": {**accuracy, "less_source": change}}]
    refused = [{"compression": {}, "fp32": accuracy, "int8": {"refused": "fail"}}]
    _, _, pruned, other, _, head, _, *by_level = compressing.table({"prune": rows, "qat": refused}).splitlines()
    assert head == "| | file | | level 1 |", "each seed's micro, of fp32 where int8 was refused"
    assert by_level == ["| prune | int8 | micro | 95.00 |", "| | | macro | 85.00 |", "| qat | fp32 | micro | 95.00 |", "| | | macro | 85.00 |"]
    assert pruned == "| prune | 1 | 90.00 | 90.00 | 80.00 | -0.50 (-1.00 to +0.10, not shown) | 70 % |  | 2.0 | 2.0 |"
    assert other == "| qat | 1 | 90.00 |  |  |  |  |  | 2.0 |  |"


def test_the_page_holds_the_tables_of_the_checked_in_results():
    root = Path(__file__).parent.parent
    text = (root / "family" / "README.md").read_text(encoding="utf-8")
    results = [json.loads(path.read_text(encoding="utf-8")) for path in (root / "benchmarks" / "results").glob("compressing-*.json")]
    members = {member: arms for result in results for member, arms in result["members"].items()}
    assert len(members) == 2 and all(f"<!-- compressing {member} -->\n\n{compressing.table(arms)}\n" in text for member, arms in members.items())
