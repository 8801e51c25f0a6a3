"""A SavedModel gives the bundle's answers, whatever it is given."""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("tensorflow", reason="TensorFlow is not installed")
import tensorflow as tf  # noqa: E402
import tf_keras  # noqa: E402
from tensorflow.core.protobuf import saved_model_pb2  # noqa: E402

from export.savedmodel import (  # noqa: E402
    ENCODED,
    EXAMPLES,
    PIXELS,
    check_saved_model,
    compare,
    decode,
    make_example,
    read_saved_model,
    why_unlike,
    write_saved_model,
)
from export.verifying import _saved_model  # noqa: E402
from family.data.images import Preprocessing, decode_image  # noqa: E402
from family.errors import UserError  # noqa: E402
from family.models.builders import build_variant  # noqa: E402

PX = 48


def smooth_photo(seed: int, width: int, height: int, kind: str = "JPEG") -> bytes:
    rng = np.random.default_rng(seed)
    image = Image.fromarray(rng.integers(0, 256, (9, 7, 3), np.uint8)).resize((width, height), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


PHOTOS = [smooth_photo(k, *size) for k, size in enumerate([(120, 90), (64, 200), (48, 48), (301, 97), (30, 40)])] + [smooth_photo(9, 80, 60, "PNG")]


@pytest.mark.parametrize("aspect", ["stretch", "crop", "pad"])
@pytest.mark.parametrize("filter", ["bilinear", "bicubic"])
def test_tensorflow_decodes_as_the_one_decoder_does(aspect, filter):
    how = Preprocessing(PX, aspect, filter)
    for data in PHOTOS:
        ours = decode_image(data, how).astype(float)
        theirs = decode(tf.constant(data), how).numpy().astype(float)
        assert np.abs(ours - theirs).mean() <= 0.4, "levels of 255: both resize alike and round differently"


def test_the_three_signatures_give_the_models_answers(tmp_path, monkeypatch):
    how = Preprocessing(PX)
    tf.keras.utils.set_random_seed(0)
    model = build_variant("lite0", 7, PX)
    head, kernel = model.get_layer("logits"), np.random.default_rng(0).normal(0, 0.2, (1280, 7))
    head.set_weights([kernel, np.zeros(7)])
    pixels = np.stack([decode_image(data, how) for data in PHOTOS])
    head.set_weights([kernel, -np.log(model.predict(pixels.astype(np.float32), verbose=0)).mean(axis=0)])  # so that not all get one answer
    write_saved_model(model, how, tmp_path / "saved_model" / "1")
    wanted = model.predict(pixels.astype(np.float32), verbose=0)
    assert len(set(wanted.argmax(axis=1))) > 1, "photos that all get one answer tell nothing of their order"
    signatures = read_saved_model(tmp_path / "saved_model" / "1")
    found = signatures[PIXELS](pixels)
    np.testing.assert_allclose(found["probabilities"], wanted, atol=1e-5)
    assert found["embedding"].shape == (len(PHOTOS), 1280) and found["probabilities"].dtype == np.float32
    encoded = signatures[ENCODED](PHOTOS)["probabilities"]
    np.testing.assert_allclose(encoded, wanted, atol=0.02)
    np.testing.assert_array_equal(signatures[EXAMPLES]([make_example(data) for data in PHOTOS])["probabilities"], encoded)
    monkeypatch.setattr("export.savedmodel.part_size", lambda px: 4)  # in two parts
    np.save(tmp_path / "pixels.npy", pixels)
    code = ("import sys, numpy as np; from pathlib import Path; from benchmarks.peers.tensorflow import TensorFlow; place = Path(sys.argv[1]); "
            "np.save(place / 'served.npy', TensorFlow(place / 'saved_model' / '1', 1).predict(np.load(place / 'pixels.npy')))")  # fmt: skip
    # In a process of its own: threads are set before TensorFlow begins.
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, cwd=Path(__file__).parents[1])
    np.testing.assert_allclose(np.load(tmp_path / "served.npy"), wanted, atol=1e-5)
    embeddings = tf_keras.Model(model.input, model.get_layer("embedding").output).predict(pixels.astype(np.float32), verbose=0)
    told = compare(tmp_path / "saved_model" / "1", PHOTOS, pixels, (wanted, embeddings))
    assert told["max_dp"] <= 1e-5 and told["max_de"] <= 1e-4 and told["examples_max_dp"] <= 1e-6 and told["n"] == len(PHOTOS)
    other = compare(tmp_path / "saved_model" / "1", PHOTOS, pixels, (np.roll(wanted, 1, axis=1), embeddings))
    assert other["max_dp"] > 0.01 and other["max_de"] == told["max_de"] and other["encoded_agreement"] < 1 and "from pixels (allowed" in why_unlike(other)
    other = compare(tmp_path / "saved_model" / "1", PHOTOS, pixels, (wanted, np.roll(embeddings, 1, axis=1)))
    assert other["max_de"] > 0.01 and "embeddings from pixels differ by" in why_unlike(other)


@pytest.mark.parametrize(
    ("variant", "px", "activation", "aspect"),
    [("b0", PX, "", "stretch"), ("b0", PX, "relu", "stretch"), ("v2-b0", PX, "hard-swish", "pad"), ("lite0", PX, "", "crop"),
     ("inception-resnet-v2", 75, "", "stretch")],
)
def test_what_members_compute_with_is_known(variant, px, activation, aspect, tmp_path):
    """With what they were trained too: a gradient that a library registers stays in the file."""
    write_saved_model(build_variant(variant, 3, px, activation=activation), Preprocessing(px, aspect), tmp_path / "1")
    check_saved_model(tmp_path / "1")


@pytest.mark.parametrize("inside", [False, True])
def test_a_saved_model_that_would_write_a_file_is_not_loaded(tmp_path, inside):
    """One whose card is right for it: whoever can make one can seal it."""
    place, image = tmp_path / "saved_model" / "1", tf.TensorSpec([None, PX, PX, 3], tf.uint8, name="image")

    def write() -> tf.Tensor:
        with tf.control_dependencies([tf.io.write_file(str(tmp_path / "written"), "here")]):
            return tf.zeros([1, 2])

    @tf.function(input_signature=[image])
    def answer(image):
        return {"probabilities": tf.cond(tf.shape(image)[0] > 0, write, lambda: tf.zeros([1, 2])) if inside else write()}

    tf.saved_model.save(tf.Module(), str(place), {PIXELS: answer})
    with pytest.raises(UserError, match="WriteFile, which no export of ours does, so it is not loaded"):
        read_saved_model(place)

    class Bundle:
        schemes, folder, preprocessing = ("fp32",), tmp_path, Preprocessing(PX)

        def samples(self, scheme):
            return PHOTOS, np.zeros((len(PHOTOS), 2), np.float32)

    (check,) = _saved_model(Bundle(), [], ["fp32"])
    assert check["holds"] is False and "WriteFile" in check["told"] and not (tmp_path / "written").exists()


def of_tensorflow_1(place, written):
    """One that runs an operator when it is loaded."""
    v1 = tf.compat.v1
    with tf.Graph().as_default() as graph, v1.Session(graph=graph) as session:
        main, image = tf.io.write_file(written, "here"), v1.placeholder(tf.uint8, [None, PX, PX, 3])
        builder = v1.saved_model.Builder(str(place))
        signature = v1.saved_model.signature_def_utils.predict_signature_def({"image": image}, {"probabilities": tf.zeros([1, 2])})
        builder.add_meta_graph_and_variables(session, ["serve"], {PIXELS: signature}, main_op=main)
        builder.save()


def unlist_functions(place, named: tuple[str, ...]) -> None:
    """Take the functions in whose names one of these stands off the list of functions; objects still name them."""
    model = saved_model_pb2.SavedModel.FromString((place / "saved_model.pb").read_bytes())
    listed = model.meta_graphs[0].object_graph_def.concrete_functions
    for name in [name for name in listed if any(part in name for part in named)]:
        del listed[name]
    (place / "saved_model.pb").write_bytes(model.SerializeToString())


def with_a_resource(place, written, hidden: bool):
    """One whose resource runs an operator when it is loaded; hidden: by a function that the list of functions does not name."""
    from tensorflow.python.trackable import resource

    class Writes(resource.TrackableResource):
        def _create_resource(self):
            return tf.raw_ops.MutableHashTableV2(key_dtype=tf.string, value_dtype=tf.int64)

        def _initialize(self):
            tf.io.write_file(written, "here")

    module = tf.Module()
    module.resource = Writes()
    answer = tf.function(lambda image: {"probabilities": tf.zeros([1, 2])}, input_signature=[tf.TensorSpec([None, PX, PX, 3], tf.uint8, name="image")])
    tf.saved_model.save(module, str(place), {PIXELS: answer})
    if hidden:
        unlist_functions(place, ("initialize", "create"))


@pytest.mark.parametrize(
    "make", [of_tensorflow_1, lambda *places: with_a_resource(*places, hidden=False), lambda *places: with_a_resource(*places, hidden=True)]
)
def test_what_would_run_when_it_is_loaded_is_not_loaded(tmp_path, make):
    make(tmp_path / "saved_model" / "1", str(tmp_path / "written"))
    (tmp_path / "written").unlink(missing_ok=True)  # by building
    with pytest.raises(UserError, match="so it is not loaded"):
        read_saved_model(tmp_path / "saved_model" / "1")
    assert not (tmp_path / "written").exists()


def test_a_function_that_an_object_alone_names_counts(tmp_path):
    place = tmp_path / "saved_model" / "1"
    image = tf.TensorSpec([None, PX, PX, 3], tf.uint8, name="image")

    def write(image):
        with tf.control_dependencies([tf.io.write_file(str(tmp_path / "written"), "here")]):
            return {"probabilities": tf.zeros([1, 2])}

    tf.saved_model.save(tf.Module(), str(place), {PIXELS: tf.function(write, input_signature=[image])})
    unlist_functions(place, ("",))
    with pytest.raises(UserError, match="WriteFile"):
        read_saved_model(place)


def test_what_is_no_saved_model_is_told(tmp_path):
    with pytest.raises(UserError, match="is no SavedModel"):
        read_saved_model(tmp_path / "saved_model" / "1")
    (tmp_path / "saved_model" / "1").mkdir(parents=True)
    (tmp_path / "saved_model" / "1" / "saved_model.pb").write_bytes(b"as it is now")
    with pytest.raises(UserError, match="is no SavedModel"):
        read_saved_model(tmp_path / "saved_model" / "1")
    write_saved_model(build_variant("lite0", 3, PX), Preprocessing(PX), tmp_path / "elsewhere" / "1")
    (tmp_path / "linked").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="is a link"):
        read_saved_model(tmp_path / "linked" / "1")
