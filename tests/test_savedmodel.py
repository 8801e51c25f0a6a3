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

from export.savedmodel import ENCODED, EXAMPLES, PIXELS, compare, decode, make_example, read_saved_model, write_saved_model  # noqa: E402
from family.data.images import Preprocessing, decode_image  # noqa: E402
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
    told = compare(tmp_path / "saved_model" / "1", PHOTOS, pixels, wanted)
    assert told["max_dp"] <= 1e-5 and told["examples_max_dp"] <= 1e-6 and told["n"] == len(PHOTOS)
    other = compare(tmp_path / "saved_model" / "1", PHOTOS, pixels, np.roll(wanted, 1, axis=1))
    assert other["max_dp"] > 0.01 and other["encoded_agreement"] < 1
