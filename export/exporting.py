"""Make a bundle of a run: convert, compare with the run, quantize, gate, store inputs with their answers."""

import io
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import onnx
from PIL import Image

from export.bundle import CANDIDATES, SAMPLES, open_bundle, sha256_of, write_samples
from export.calibrate import largest_activation
from export.learned import quantize_learned
from export.metadata import write_metadata
from export.proof import count_operators, opset_of, prove, why_not_int8
from export.quantize import MOST_IN_FP16, halve, load_fp32
from export.rows import N_SAMPLED_FROM, calibration_rows, draw, held_back_rows, n_to_judge_on
from export.runtime import Predictor, Settings, in_parts, part_size, run_both, run_unfused
from export.search import report_accuracy, search, summary, tell_choice, write_candidates
from export.speed import compare_speed, tell_speed
from export.verify import (
    FUSED,
    MAX_DE,
    MAX_DP,
    Answers,
    compare,
    differences,
    embedding_cosine,
    gate,
    hostile_files,
    hostile_images,
    is_refused,
    parity_holds,
    tell_verdict,
)
from family.card import write_card
from family.data.dataset import Dataset, Rows
from family.data.images import Preprocessing, decode_image, decode_rgb
from family.data.order import choose_balanced
from family.data.reading import decode_all
from family.errors import Failure, UserError
from family.evaluation.predictions import level_maps
from family.machine import cpu_model, peak_memory_mb
from family.outputs import whole_folder, write_json

N_SAMPLES, N_COMPARED = 256, 64  # stored inputs, and those of them, of as many classes as there are, by which fp32 is compared with the run


@dataclass(frozen=True)
class Gate:
    """How smaller schemes are judged."""

    max_drop: float  # points that they may lose
    strict: bool  # a scheme of which the validation rows don't decide is refused too
    n_rows: int | None  # validation rows, at most; None: as many as `n_to_judge_on` says


@dataclass(frozen=True)
class Judged:
    """What schemes are judged on: validation rows, and fp32's answers to them."""

    pixels: np.ndarray  # uint8 [n, px, px, 3], in a file
    labels: np.ndarray  # int [n], classes
    listings: np.ndarray  # int [n], from 0 on
    levels: list[tuple[np.ndarray, int]]  # of `level_maps`
    reference: np.ndarray  # float32 [n, n_classes]
    n_there: int  # validation rows


def export_run(run: Path, out: Path, schemes: list[str], dataset: Dataset, gate_of: Gate, made_of: dict, saved_model: bool = False) -> list[str]:
    """Write the bundle and return why schemes were refused, one line each.

    Args:
        saved_model: write `saved_model/1` too, for TensorFlow Serving.

    Raises:
        Failure: fp32 does not give the run's answers, so there is nothing to export; or every scheme was refused.
    """
    from family.training.runs import load_calibrated  # isort: skip  (TensorFlow, quietly, from here on)
    from export.exact import full_float32, in_float64, predict_both
    from export.onnx import convert

    began = time.monotonic()
    model, card = load_calibrated(run)
    how = Preprocessing.from_card(card["preprocessing"])
    held_back = held_back_rows(dataset, card)
    val = draw(held_back, N_SAMPLED_FROM)
    with full_float32(), whole_folder(out, made_of) as folder:
        card = {**card, "schemes": {}, "export": {"calibration_dataset": dataset.digest}}
        fp32 = folder / "model.fp32.onnx"
        convert(model, fp32)
        write_metadata(fp32, card, "fp32")
        chosen = choose_balanced(val.labels, N_SAMPLES)
        samples = [_stored(val.read(int(row)), 2 * how.resolution_px) for row in chosen]
        pixels = np.stack([decode_image(data, how) for data in samples])
        photos, batch = pixels[choose_balanced(val.labels[chosen], N_COMPARED)], part_size(how.resolution_px)
        checked = np.concatenate([photos, _hostile_pixels(how)])
        source = predict_both(model, checked, batch)

        served = run_both(_open(folder, card, "fp32").session, checked)
        found = _check_parity(source, fp32, served, checked, len(photos), lambda images: predict_both(in_float64(model), images, 1))
        refused = _write_saved_model(model, how, folder, card, samples, pixels) if saved_model else []
        smaller = [name for name in MAKERS if name in schemes]
        with tempfile.TemporaryFile(dir=folder) as file:
            judged = _judge_on(folder, card, held_back, gate_of, how, file) if smaller else None
            for scheme in smaller:
                refused += _export_smaller(scheme, folder, card, dataset, judged, how, gate_of)
        _compare_embeddings(folder, card, pixels)
        if "fp32" not in schemes:
            fp32.unlink()
            del card["schemes"]["fp32"]
            card["export"]["parity"] = found  # of what the others were made of
        else:
            card["schemes"]["fp32"] |= {"parity": found, "operators": count_operators(fp32)}
        if not card["schemes"]:
            raise Failure(f"{'; '.join(refused)}; nothing else was asked for, so there is no bundle: with --schemes fp32,{','.join(smaller)} there is one, "
                          "whose card tells what was found")  # fmt: skip
        write_samples(folder, samples, {scheme: _answers(folder, card, scheme, pixels) for scheme in card["schemes"]})
        labels = [{"class": k, "category_id": i, "path": p} for k, (i, p) in enumerate(zip(card["classes"], card["paths"], strict=True))]
        write_json(folder / "labels.json", labels)
        own = [name for name in ("labels.json", SAMPLES, CANDIDATES) if (folder / name).is_file()]
        own += [path.relative_to(folder).as_posix() for path in sorted((folder / "saved_model").rglob("*")) if path.is_file()]
        card["export"] |= {"s": round(time.monotonic() - began, 1), "peak_memory_mb": peak_memory_mb()}
        card["files"] = {name: sha256_of(folder / name) for name in own}
        write_card(folder, card)
    return refused


def _write_saved_model(model, how: Preprocessing, folder: Path, card: dict, samples: list[bytes], pixels: np.ndarray) -> list[str]:
    """Write a SavedModel and compare it with fp32; return why it was refused, or nothing."""
    from export.savedmodel import UNLIKE, VERSION, compare, why_unlike, write_saved_model

    place = folder / "saved_model" / VERSION
    write_saved_model(model, how, place)
    found = compare(place, samples, pixels, (_answers(folder, card, "fp32", pixels), _open(folder, card, "fp32").embed(pixels)))
    print(f"saved_model: {_told(found)} from pixels, {found['encoded_agreement']:.1%} of encoded images have the same best category, "
          f"on {found['n']} images")  # fmt: skip
    if why := why_unlike(found):
        shutil.rmtree(folder / "saved_model")
        card.setdefault("refused", {})["saved_model"] = {"why": f"it does not give fp32's answers: {why}", **found}
        return [f"the SavedModel is refused: it does not give fp32's answers: {why}"]
    card["saved_model"] = {"folder": place.relative_to(folder).as_posix(), "parity": found, "unlike_the_bundle": UNLIKE}
    return []


def _check_parity(source: Answers, fp32: Path, served: Answers, images: np.ndarray, n_photos: int, recount: Callable[[np.ndarray], Answers]) -> dict:
    """Compare the run's answers with the file's, as it is written and as the Predictor serves it.

    Args:
        images: uint8 [n, px, px, 3]; the first `n_photos` of them are photos.
        recount: images -> the run's answers in float64, which tell whether a run magnifies what float32 rounds; slow, asked for one image of a file that fails.

    Raises:
        Failure: they differ by more than rounding.
    """
    written = run_unfused(fp32, images)
    found, fused, photos = compare(source, written), compare(source, served), compare(*([part[:n_photos] for part in of] for of in (source, written)))
    print(f"fp32, {found['n']} images: as written {_told(found)}, on photos {_told(photos)}; as served {_told(fused)}")
    if parity_holds(found) and parity_holds(fused, FUSED):
        return {**found, "photos": photos, "served": fused}
    how, wrong, times = ("as served", served, FUSED) if parity_holds(found) else ("as written", written, 1)
    far = _times_allowed(differences(source, wrong)) / times
    # Within what is allowed it is a best category that differs.
    differs = source[0].argmax(1) != wrong[0].argmax(1)
    worst = int(differs.argmax() if far.max() <= 1 and differs.any() else far.argmax())
    where = f"photo {worst}" if worst < n_photos else f"hostile image {worst - n_photos}"
    exact = tuple(part.astype(float) for part in source)
    for part, one in zip(exact, recount(images[worst : worst + 1]), strict=True):
        part[worst] = one[0]
    own, files = ([apart[worst : worst + 1] for apart in differences(exact, of)] for of in (source, wrong))
    # As far off as a run that rounds much explains: what a wrong graph does to such a run is no rounding.
    rounds = _times_allowed(own)[0] > times / 4 and _times_allowed(files)[0] <= 4 * _times_allowed(own)[0]
    told = [_told({"max_dp": dp[0], "max_de": de[0]}) for dp, de in (own, files)]
    advice = ". The run magnifies what float32 rounds: an EfficientNet from random weights does it less with residual_gamma = 0, and with longer training"
    raise Failure(
        f"fp32 does not give the run's answers: {_told(found)} (allowed {MAX_DP:.0e} and {MAX_DE:.0e}), agreement {found['agreement']:.2%}; on photos "
        f"{_told(photos)}; as served {_told(fused)} (allowed {FUSED} times as much), {fused['agreement']:.2%}; worst {how} on {where}, where the run's own "
        f"answers lie {told[0]} from the same layers in float64, and the file's {told[1]}{advice if rounds else ''}"
    )


def _times_allowed(apart: Sequence[np.ndarray]) -> np.ndarray:
    """Return how many times as far as they may each image's answers lie apart, of `differences`."""
    dp, de = (part.astype(float) for part in apart)
    return np.maximum(dp / MAX_DP, de / MAX_DE)


def _told(found: dict) -> str:
    return f"max |dp| {found['max_dp']:.2e}, max |de| {found['max_de']:.2e} of |e|"


def _entry(folder: Path, scheme: str) -> dict:
    path = folder / f"model.{scheme}.onnx"
    opset = opset_of(onnx.load(path, load_external_data=False))
    return {"file": path.name, "sha256": sha256_of(path), "size_mb": round(path.stat().st_size / 1e6, 3), "opset": opset}


def _open(folder: Path, card: dict, scheme: str) -> Predictor:
    """Open a file of a bundle in the making with the Predictor that serves it."""
    card["schemes"].setdefault(scheme, _entry(folder, scheme))
    write_card(folder, card)
    return Predictor(open_bundle(folder), Settings(scheme, "cpu"))


def _answers(folder: Path, card: dict, scheme: str, images: np.ndarray) -> np.ndarray:
    predictor = _open(folder, card, scheme)
    return np.concatenate([predictor.predict(part) for part in in_parts(images)])


def _judge_on(folder: Path, card: dict, held_back: Rows, gate_of: Gate, how: Preprocessing, file: BinaryIO) -> Judged:
    val = draw(held_back, gate_of.n_rows or n_to_judge_on(held_back.labels, gate_of.max_drop))
    print(f"judging on {len(val):,} of {len(held_back):,} validation images")
    pixels = decode_all(val, how, file)
    listings = np.unique(val.listing_ids.astype(str), return_inverse=True)[1]
    return Judged(pixels, val.labels, listings, level_maps(val.ontology), _answers(folder, card, "fp32", pixels), len(held_back))


def _export_smaller(scheme: str, folder: Path, card: dict, dataset: Dataset, judged: Judged, how: Preprocessing, gate_of: Gate) -> list[str]:
    """Make a scheme's file, judge it and note it in the card; return why it was refused, or nothing."""
    path, pixels = folder / f"model.{scheme}.onnx", judged.pixels
    try:
        made, proof, why = MAKERS[scheme](folder / "model.fp32.onnx", path, dataset, card, how, judged)
    except (Failure, UserError) as error:
        return _refuse(path, scheme, card, {}, f"it can't be made: {error}")
    write_metadata(path, card, scheme)
    if why:
        return _refuse(path, scheme, card, {"proof": proof, "made": made}, f"since it is none: {why}")
    try:
        _answers(folder, card, scheme, _hostile_pixels(how))
        answers = _answers(folder, card, scheme, pixels)
    except Failure as error:
        return _refuse(path, scheme, card, {"made": made, "proof": proof}, str(error))
    verdict = gate(judged.reference, answers, judged.labels, gate_of.max_drop, judged.levels, judged.listings) | {"n_there": judged.n_there}
    print(f"{scheme}: {verdict['drop_points']:+.2f} points lost on {verdict['n']} validation images (95 % interval "
          f"{verdict['interval'][0]:+.2f} to {verdict['interval'][1]:+.2f}), agreement {verdict['agreement']:.1%}: {tell_verdict(verdict)}")  # fmt: skip
    if is_refused(verdict, gate_of.strict):
        return _refuse(path, scheme, card, {"made": made, "proof": proof, "gate": verdict}, f"{tell_verdict(verdict)} (allowed {gate_of.max_drop} points "
                       "at any level)")  # fmt: skip
    speed = compare_speed(*(Predictor(open_bundle(folder), Settings(name, "cpu", 1)).predict for name in ("fp32", scheme)), pixels[:32])
    print(f"{scheme}: {tell_speed(speed)}")
    card["schemes"][scheme] |= {
        "made": made, "proof": proof, "gate": {**verdict, "max_drop_points": gate_of.max_drop}, "speed": {**speed, "cpu": cpu_model()},
        "operators": count_operators(path),
    }  # fmt: skip
    if speed["interval"][0] <= 1:
        card["schemes"][scheme]["warning"] = tell_speed(speed)
    return []


def _compare_embeddings(folder: Path, card: dict, images: np.ndarray) -> None:
    """Note in the card how far each smaller scheme turns the embeddings of the stored images away from fp32's."""
    if not (smaller := [scheme for scheme in card["schemes"] if scheme != "fp32"]):
        return
    reference = _open(folder, card, "fp32").embed(images)
    for scheme in smaller:
        found = card["schemes"][scheme]["embedding_cosine"] = embedding_cosine(reference, _open(folder, card, scheme).embed(images))
        print(f"{scheme}: the cosine of embeddings with fp32's is {found['median']:.4f} in the median of {found['n']} images, at least {found['least']:.4f}")


def _refuse(path: Path, scheme: str, card: dict, found: dict, why: str) -> list[str]:
    path.unlink(missing_ok=True)
    card["schemes"].pop(scheme, None)
    card.setdefault("refused", {})[scheme] = {"why": why, **found}
    return [f"{scheme} is refused: {why}"]


def _make_int8(fp32: Path, int8: Path, dataset: Dataset, card: dict, how: Preprocessing, judged: Judged) -> tuple[dict, dict, str]:
    """Write int8, with learned ranges, or searched on training rows, with the table of candidates; return how it was made, the proof, and why it is
    none, or ""."""
    if "ranges" in card.get("compression", {}):
        made, proof = quantize_learned(fp32, int8, card["compression"]["ranges"]), prove(int8)
        return made, proof, why_not_int8(proof, made["convolutions_in_float"])
    calibration, ranked_on = (decode_all(rows, how) for rows in calibration_rows(dataset, card))
    with tempfile.TemporaryDirectory() as place:
        trials, rows = search(fp32, calibration, ranked_on, Path(place))
        (chosen,) = (row for row in rows if row["chosen"])
        shutil.move(trials.write(chosen), int8)
        report_accuracy(trials, rows, judged.pixels, judged.labels)  # of what is chosen already
    write_candidates(int8.parent / CANDIDATES, rows)
    made, proof = summary(trials, rows, len(calibration)), prove(int8)
    print(tell_choice(made, rows))
    return made, proof, why_not_int8(proof, made["convolutions_in_float"])


def _make_fp16(fp32: Path, fp16: Path, dataset: Dataset, card: dict, how: Preprocessing, judged: Judged) -> tuple[dict, dict, str]:
    """Write fp16; return how it was made, the proof, and why it is none, or ""."""
    made = halve(fp32, fp16)
    share = fp16.stat().st_size / fp32.stat().st_size
    # A processor computes the file in float32, so that what overflows on a GPU would not show in its answers.
    largest = largest_activation(load_fp32(fp32), np.concatenate([judged.pixels[:N_COMPARED], _hostile_pixels(how)]))
    proof = {"size_of_fp32": round(share, 3), "largest_activation": largest}
    if largest > MOST_IN_FP16:
        return made, proof, f"an activation of fp32 reaches {largest:,.0f}, and 16 bits hold {MOST_IN_FP16:,.0f}"
    return made, proof, "" if share < 0.6 else f"it has {share:.0%} of the bytes of fp32"


MAKERS = {"fp16": _make_fp16, "int8": _make_int8}  # of the schemes that are judged against fp32, in the order in which they are made


def _hostile_pixels(how: Preprocessing) -> np.ndarray:
    """Return uint8 [n, px, px, 3] of images that no photo is, some of which are files of extreme sizes."""
    return np.concatenate([hostile_images(how.resolution_px), [decode_image(data, how) for data in hostile_files()]])


def _stored(data: bytes, px: int) -> bytes:
    """Return an image as a bundle stores it: an upright JPEG of at most px x px, without what a seller's camera wrote into it, such as where it was."""
    image = decode_rgb(data)
    image.thumbnail((px, px), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()
