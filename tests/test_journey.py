"""The whole way on made-up listings, by the command line, each stage reading what the one before wrote."""

import csv
import json
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from readme_lines import snippet

from export.bundle import open_bundle, sha256_of
from export.verifying import AGREEMENT, TYPICAL_DP
from family.data.images import decode_image

ROOT = Path(__file__).parent.parent


def family(*words, code: int = 0, timeout_s: int = 400) -> subprocess.CompletedProcess:
    done = subprocess.run([sys.executable, "-m", "family.cli", *map(str, words)], capture_output=True, text=True, timeout=timeout_s)
    assert done.returncode == code, f"{words}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A dataset, a run from scratch and its bundle."""
    place = tmp_path_factory.mktemp("journey")
    family("data", "synth", place / "dataset", "--listings", 160, "--categories", 12)
    family("train", place / "dataset", "--out", place / "run", "--variant", "lite0", "--weights", "none", "--recipe", "scratch",
           "--set", "resolution_px=48", "--set", "finetune_epochs=6", "--set", "batch_size=16")  # fmt: skip
    exported = subprocess.run(
        [sys.executable, "-m", "family.cli", "export", place / "run", "--out", place / "bundle", "--max-drop", "30", "--schemes", "fp32,fp16,int8"],
        capture_output=True,
        text=True,
    )
    assert exported.returncode == 0, exported.stderr
    return place


def test_a_bundle_answers_as_its_run(place):
    run = json.loads(family("evaluate", place / "run", place / "dataset", "--out", place / "of-run", "--json").stdout)
    bundle = json.loads(family("evaluate", place / "bundle", place / "dataset", "--out", place / "of-bundle", "--json").stdout)
    assert run["top1"] == bundle["top1"] and run["levels"] == bundle["levels"]
    ours, theirs = (pq.read_table(place / name / "predictions.parquet").to_pydict() for name in ("of-run", "of-bundle"))
    np.testing.assert_allclose(np.array(ours["top_probabilities"]), np.array(theirs["top_probabilities"]), atol=1e-5)
    for ids, others, p in zip(ours["top_ids"], theirs["top_ids"], ours["top_probabilities"], strict=True):
        apart = np.abs(np.diff(p)) > 2e-5  # of its neighbours; who is as probable as another may change places with it
        clear = np.concatenate([[True], apart]) & np.concatenate([apart, [False]])
        assert [a for a, sure in zip(ids, clear, strict=True) if sure] == [b for b, sure in zip(others, clear, strict=True) if sure]
    assert run["top1"]["micro"] <= run["levels"]["1"]["micro"] + 1e-9


def test_the_graph_is_what_the_contract_says(place):
    import onnx
    import onnxruntime as ort

    for scheme in ("fp32", "fp16", "int8"):
        session = ort.InferenceSession(place / "bundle" / f"model.{scheme}.onnx", providers=["CPUExecutionProvider"])
        (image,) = session.get_inputs()
        assert (image.name, image.type, image.shape) == ("image", "tensor(uint8)", ["N", 48, 48, 3])
        assert {output.name for output in session.get_outputs()} == {"probabilities", "embedding"}
    operators = [node.op_type for node in onnx.load(place / "bundle" / "model.int8.onnx").graph.node]
    assert "BatchNormalization" not in operators and operators.count("Transpose") <= 1
    made = json.loads((place / "bundle" / "card.json").read_text())["schemes"]["int8"]["made"]
    n_int8 = 49 - made["convolutions_in_float"]
    assert operators.count("QLinearConv" if made["format"] == "QOperator" else "QuantizeLinear") >= n_int8 > 49 / 2


def test_the_card_tells_how_the_export_was_checked(place):
    card = json.loads((place / "bundle" / "card.json").read_text())
    assert card["schemes"]["fp32"]["parity"]["agreement"] == 1.0 and card["schemes"]["fp32"]["parity"]["max_dp"] <= 1e-5
    made = card["schemes"]["int8"]["made"]
    with open(place / "bundle" / "candidates.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    (chosen,) = (row for row in rows if row["chosen"] == "True")
    timed = [row for row in rows if row["relative_time"]]
    from export.search import score

    cost = {id(row): score({key: float(row[key]) for key in ("divergence", "relative_time")}) for row in timed}
    best = min((row for row in timed if row["format"] == "QDQ"), key=lambda row: cost[id(row)])
    assert chosen is best or (chosen["format"] == "QOperator" and cost[id(chosen)] < cost[id(best)])
    assert len(rows) == made["n_candidates"] > 30 and len(timed) >= 3
    assert (chosen["ranges"], chosen["blocks_in_float"].split(), chosen["format"]) == (made["ranges"], made["blocks_in_float"], made["format"])
    assert all(0 <= float(row["val_micro"]) <= 1 for row in timed) and not any(row["val_micro"] for row in rows if not row["relative_time"])
    assert made["weight_bits"] in (7, 8) and card["files"]["candidates.csv"] == sha256_of(place / "bundle" / "candidates.csv")
    said = family("show", place / "bundle").stdout
    assert "candidates for int8" in said and said.count("percentile 99.99 ") > 2
    assert card["schemes"]["int8"]["size_mb"] < 0.4 * card["schemes"]["fp32"]["size_mb"]
    assert 0.4 < card["schemes"]["fp16"]["size_mb"] / card["schemes"]["fp32"]["size_mb"] < 0.6
    for scheme in ("fp16", "int8"):
        entry = card["schemes"][scheme]
        assert entry["gate"]["verdict"] in ("pass", "undecided") and {"1", "2"} <= set(entry["gate"]["levels"])
        assert entry["speed"]["interval"][0] <= entry["speed"]["ratio"] <= entry["speed"]["interval"][1]
        least, median = (entry["embedding_cosine"][key] for key in ("least", "median"))
        assert -1 <= least <= median <= 1.000001 and median > {"fp16": 0.999, "int8": 0.9}[scheme]
    proof = card["schemes"]["int8"]["proof"]
    assert proof["float_convolutions"] <= made["convolutions_in_float"] and proof["batchnorms"] == 0
    assert proof["int8_convolutions"] + proof["float_convolutions"] == 49 and proof["int8_convolutions"] > 49 / 2


def test_what_was_exported_is_verified(place):
    said = family("verify", place / "bundle").stdout
    assert "WRONG" not in said and said.count("stored inputs have the stored best category") == 3 and "int8 proof" in said
    assert said.count("labels, tree, preprocessing and card, as the card says") == 3 and said.count("embeddings: their cosine with fp32's is") == 2


def test_a_scheme_that_loses_too_much_is_refused_and_the_others_are_written(place):
    # Nothing may be lost, and even a gain is demanded: int8 can't pass.
    said = family("export", place / "run", "--out", place / "strict", "--max-drop", "-101", code=1).stderr
    assert "int8 is refused" in said
    assert (place / "strict" / "model.fp32.onnx").is_file() and not (place / "strict" / "model.int8.onnx").exists()
    card = json.loads((place / "strict" / "card.json").read_text())
    assert list(card["schemes"]) == ["fp32"] and set(card["refused"]["int8"]) == {"why", "made", "proof", "gate"}
    assert "refused int8" in family("show", place / "strict").stdout
    assert "is a bundle already" in family("export", place / "bundle", "--out", place / "again", code=2).stderr


def test_results_are_reported_and_picked_from(place):
    results = place / "results.jsonl"
    family("bench", place / "bundle", "--out", results, "--data", place / "dataset", "--samples", 300)
    rows = [json.loads(line) for line in results.read_text().splitlines()]
    assert sorted(row["kind"] for row in rows) == ["accuracy"] * 3 + ["latency"] * 3
    assert all(row["provider"] == "cpu" and row["machine"]["cores"] >= 1 for row in rows if row["kind"] == "latency")
    family("bench", place / "bundle", "--out", results, "--data", place / "dataset", "--samples", 300)
    rows = [json.loads(line) for line in results.read_text().splitlines()]
    assert len(rows) == 6, "a repeated measurement replaces the old one"
    report = Path(family("report", results, "--out", place / "report").stdout.splitlines()[-1])
    assert report.name == "report.html" and report.is_file()
    picked = json.loads(family("pick", results, "--budget-ms", 10000, "--allow-invalid", "--copy-to", place / "best", "--json").stdout)
    speeds = {row["scheme"]: row["against_fp32"] for row in rows if row["kind"] == "latency"}
    worth_it = [scheme for scheme, speed in speeds.items() if scheme == "fp32" or speed["ratio"] > 1]
    assert picked["accuracy"] == max(row["metrics"]["top1"]["micro"] for row in rows if row["kind"] == "accuracy" and row["scheme"] in worth_it)
    assert "nothing fits" in family("pick", results, "--budget-ms", 0.001, "--allow-invalid", code=3).stderr
    assert json.loads((place / "best" / "card.json").read_text())["serve"]["scheme"] == picked["scheme"]


def test_the_same_model_is_timed_in_keras_beside_our_files(place):
    results = place / "peers.jsonl"
    words = ("bench", place / "bundle", "--out", results, "--data", place / "dataset", "--min-seconds", 0, "--peers", "--rounds", 6)
    assert "and the bundle is of" in family(*words, "--run", _other_run(place), code=2).stderr
    family(*words, "--run", place / "run")
    rows = {row["side"]: row for row in map(json.loads, results.read_text().splitlines()) if row["kind"] == "peer"}
    keras = rows["keras"]
    assert {"ours-fp32", "ours-int8", "keras"} <= set(rows) and keras["versions"]["tensorflow"]
    assert keras["answers"]["agreement"] >= 0.99 and keras["answers"]["max_dp"] < 1e-3
    assert keras["metrics"]["top1"] == json.loads((place / "of-run" / "metrics.json").read_text())["top1"]
    assert keras["against"]["fp32"]["ratio"] > 0 and keras["against"]["fp32"]["interval"][0] <= keras["against"]["fp32"]["ratio"]
    assert "Keras, a traced call" in Path(family("report", results, "--out", place / "peers").stdout.splitlines()[-1]).read_text()


def _other_run(place: Path) -> Path:
    """Return a folder whose card is of another run."""
    shutil.copytree(place / "run", place / "other")
    card = json.loads((place / "other" / "card.json").read_text())
    (place / "other" / "card.json").write_text(json.dumps({**card, "name": "b9-48-general"}))
    return place / "other"


def test_what_was_picked_predicts(place):
    images = sorted((place / "dataset" / "images").glob("*/*.jpg"))[:3]
    answers = json.loads(family("predict", place / "bundle", *images, "--json", "--scheme", "int8").stdout)
    assert [answer["image"] for answer in answers] == [str(image) for image in images]
    for answer in answers:
        assert answer["top"][0]["category_id"] == answer["category_id"] and len(answer["top"]) == 5
        assert 0 < answer["probability"] <= 1 and answer["levels"][0]["path"] == answer["levels"][0]["path"].split("/")[0]
    (place / "broken.jpg").write_bytes(images[0].read_bytes()[:200])
    assert "broken.jpg" in family("predict", place / "bundle", place / "broken.jpg", code=1).stderr


def test_where_numpy_and_onnx_runtime_are_all_there_is_the_bundle_answers(place, tmp_path):
    """What was exported here, by the README's lines, in an environment that holds the two packages and nothing of ours."""
    if os.environ.get("PIP_NO_INDEX"):
        pytest.skip("needs a package index")
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / "bin" / "python"
    installed = subprocess.run([python, "-m", "pip", "install", "-q", "--retries", "10", "--timeout", "60", "-c", ROOT / ".ci" / "constraints.txt", "numpy",
                                "onnxruntime==1.26.0"], capture_output=True, text=True, timeout=600)  # fmt: skip
    assert installed.returncode == 0, installed.stderr[-2000:]
    bundle = open_bundle(place / "bundle")
    images, stored = bundle.samples("int8")
    np.save(tmp_path / "pixels.npy", np.stack([decode_image(data, bundle.preprocessing) for data in images]))
    shutil.copytree(place / "bundle", tmp_path / "bundle")
    code = snippet() + "\nnp.save('answers.npy', probabilities)"
    done = subprocess.run([python, "-I", "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    answers = np.load(tmp_path / "answers.npy")
    assert (answers.argmax(1) == stored.argmax(1)).mean() >= AGREEMENT and np.median(np.abs(answers - stored).max(axis=1)) <= TYPICAL_DP
    paths = bundle.card["paths"]
    assert done.stdout.splitlines() == [paths[best] for best in answers.argmax(1)]
    packages = subprocess.run([python, "-m", "pip", "list"], capture_output=True, text=True).stdout.lower()
    assert "onnxruntime" in packages and not any(name in packages for name in ("tensorflow", "keras", "pillow", "pyarrow", "family"))


def test_the_light_path_predicts_without_tensorflow(place, tmp_path):
    """Install `.[serve]` alone into an empty environment, and predict with the bundle there."""
    if os.environ.get("PIP_NO_INDEX"):
        pytest.skip("needs a package index")
    checkout = tmp_path / "checkout"
    listed = subprocess.run(["git", "-C", ROOT, "ls-files", "-co", "--exclude-standard"], capture_output=True, text=True)
    names = (
        listed.stdout.splitlines() if listed.returncode == 0 else [p.relative_to(ROOT) for p in ROOT.rglob("*.*") if ".venv" not in p.parts]
    )
    for name in names:
        if (ROOT / name).is_file():
            (checkout / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, checkout / name)
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / "bin" / "python"
    install = [python, "-m", "pip", "install", "-q", "--retries", "10", "--timeout", "60", "-c", checkout / ".ci" / "constraints.txt", f"{checkout}[serve]"]
    installed = subprocess.run(install, capture_output=True, text=True, timeout=600)
    assert installed.returncode == 0, installed.stderr[-2000:]
    packages = subprocess.run([python, "-m", "pip", "list"], capture_output=True, text=True).stdout.lower()
    assert not any(name in packages for name in ("tensorflow", "horovod", "keras", "onnxruntime-gpu"))
    image = next((place / "dataset" / "images").glob("*/*.jpg"))
    command = [tmp_path / "env" / "bin" / "family", "predict", place / "bundle", image, "--json"]
    answered = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert answered.returncode == 0, answered.stderr
    here = json.loads(family("predict", place / "bundle", image, "--json").stdout)
    assert json.loads(answered.stdout)[0]["category_id"] == here[0]["category_id"]
