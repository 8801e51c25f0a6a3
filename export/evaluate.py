"""`family evaluate`: accuracy of a run, a bundle or a chain at every level of the tree, on the rows of a split."""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from export.chain import Chain, identify_any, is_chain, open_any
from export.opening import Model, add_settings
from family.card import read_card
from family.data.dataset import Dataset, Rows, open_dataset
from family.data.ontology import Ontology
from family.data.reading import read_sizes
from family.errors import UserError
from family.evaluation.against import compare_members, read_answers
from family.evaluation.assembling import WANTED, Answered, Temperature, assemble
from family.evaluation.calibration import TemperatureFit
from family.evaluation.gate import check_names, expected_names, find_short, parse_wanted
from family.evaluation.groups import check_values
from family.evaluation.predictions import gather_answers, predict_batches, predict_rows, write_predictions
from family.evaluation.verticals import Comparison, to_table
from family.outputs import MADE_OF, is_done, read_json, whole_folder, write_json
from family.progress import next_command, progress
from family.reporting.page import evaluation_page
from family.reporting.photos import images_shown
from family.reporting.thumbnails import make_thumbnails
from family.reporting.writing import write_files

BATCH_SIZE = 32
ORIGIN = Path(__file__).parents[1] / "benchmarks" / "results" / "origin.json"  # figures of the system that this follows; data, not code
# What an evaluation stands for that an earlier version made, which had no such words.
DEFAULTS = {"by": [], "precision": WANTED, "against": None, "provider": None, "figures": 1}
FIGURES = 2  # grows with every change of what an evaluation computes or writes, so that an older folder does not stand for a newer one
NO_VAL = "{} has no validation rows here to fit thresholds on, so nothing is told of filing."
VAL_ITSELF = (
    "The validation rows themselves are evaluated: a temperature and thresholds that were fitted on them would flatter and are left out."
)

TRAIN_ITSELF = "The training rows themselves are evaluated: the model learned from them, and every figure flatters it."


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=Path, metavar="RUN|BUNDLE|CHAIN.toml")
    parser.add_argument("dataset", type=Path, metavar="DATASET")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR",
        help="gets report.html, metrics.json, predictions.parquet, tables as CSV and summary.md; of a chain also verticals.json",
    )  # fmt: skip
    parser.add_argument("--split", default="test", help="train, val or test (default test)")
    parser.add_argument(
        "--by", action="append", default=[], metavar="COLUMN", help="every figure for each value of a column; several times"
    )
    parser.add_argument("--precision", type=float, default=WANTED, metavar="P",
                        help=f"with which listings are to be filed without a person (default {WANTED})")  # fmt: skip
    parser.add_argument("--against", type=Path, metavar="DIR", help="another member's evaluation of the same rows, to compare with")
    parser.add_argument(
        "--fail-under", metavar="NAME=NUMBER,...", help="exit 1 where a metric is lower, as in top1.micro=0.80,levels.2.macro=0.84"
    )
    parser.add_argument("--json", action="store_true", help="print the metrics as one JSON object")
    parser.add_argument("--fresh", action="store_true", help="move a DIR that is there aside")
    add_settings(parser)


def run(args: argparse.Namespace) -> int:
    wanted = parse_wanted(args.fail_under) if args.fail_under else {}
    if not 0 < args.precision < 1:
        raise UserError(f"--precision {args.precision:g}: wanted more than 0 and less than 1, as in 0.9")
    dataset = open_dataset(args.dataset)
    made_of = _made_of(args, dataset)
    if is_done(args.out, made_of, args.fresh, DEFAULTS):
        print(f"{args.out}: already done", file=sys.stderr)
        metrics = read_json(args.out / "metrics.json")
    else:
        with whole_folder(args.out, made_of) as folder:
            metrics = _evaluate_into(folder, args, dataset, made_of)
    if args.json:
        json.dump(metrics, sys.stdout)
        print()
    else:
        _say(args, made_of["member"], metrics)
    short = find_short(metrics, wanted)
    for line in short:
        print(f"family evaluate: {line}", file=sys.stderr)
    return 1 if short else 0


def _evaluate_into(folder: Path, args: argparse.Namespace, dataset: Dataset, made_of: dict) -> dict:
    """Answer the rows, write all files but `made_of.json`, and return the metrics."""
    model = open_any(args.model, args.scheme, args.provider, args.threads)
    ontology = dataset.scope_of(model.card)
    rows = dataset.rows(args.split, ontology)
    columns = {name: dataset.column(name, args.split, ontology) for name in args.by}
    for name, values in columns.items():
        check_values(name, values)
    if args.fail_under:
        check_names(parse_wanted(args.fail_under), expected_names(ontology, columns, _has_validation(dataset, args.split, ontology)))
    other = read_answers(args.against, rows) if args.against else None
    if other and len(other[0]) < len(rows):
        print(f"{args.against} has {len(other[0])} of these {len(rows)} rows: they are compared", file=sys.stderr)
    validation, temperature, notes = _answer_validation(model, dataset, args.split)
    notes += [TRAIN_ITSELF] if args.split == "train" else []
    began = time.monotonic()
    answered = _answer(model, rows, temperature, dataset, args.split, folder)
    print(f"answered {len(rows):,} images, {len(rows) / (time.monotonic() - began):.0f} images/s with decoding", file=sys.stderr)
    about = {"member": made_of["member"], "dataset": dataset.about["name"], "digest": dataset.digest, "split": args.split,
             "scope": model.card["scope"], "notes": notes}  # fmt: skip
    train_rows = dataset.count_rows("train", ontology)
    evaluated = assemble(about, answered, validation, temperature, train_rows, columns, args.precision)
    write_predictions(folder / "predictions.parquet", rows, answered.by_image)
    if validation:
        write_predictions(folder / "predictions-val.parquet", validation.rows, validation.by_image)
    write_files(folder, answered, evaluated)
    compared = None
    if other:
        compared = {"other": made_of["against"]["member"], "differences": compare_members(answered.by_image, *other, rows)}
        write_json(folder / "compared.json", compared)
    pictures = make_thumbnails(dataset.folder, images_shown(evaluated.findings))
    page = evaluation_page(evaluated.findings, pictures, read_json(ORIGIN), compared)
    (folder / "report.html").write_text(page, encoding="utf-8")
    return evaluated.findings.metrics


def _answer_validation(model: Model | Chain, dataset: Dataset, split: str) -> tuple[Answered | None, Temperature | None, list[str]]:
    """Answer the validation rows, and fit the temperature on them where the card has none; the notes tell what is left out."""
    ontology, temperature = dataset.scope_of(model.card), _known_temperature(model)
    if split == "val":
        return None, None, [VAL_ITSELF]
    if not _has_validation(dataset, split, ontology):
        return None, temperature, [NO_VAL.format(dataset.about["name"])]
    rows, fit = dataset.rows("val", ontology), TemperatureFit()
    batches = _batches(model, rows, model.predict)
    answered = Answered(rows, *gather_answers(batches if temperature else fit.watch(batches, rows.labels), rows))
    return answered, temperature or Temperature(fit.temperature(), "val"), []


def _has_validation(dataset: Dataset, split: str, ontology: Ontology) -> bool:
    return split != "val" and dataset.count_rows("val", ontology).any()


def _known_temperature(model: Model | Chain) -> Temperature | None:
    """Return the temperature of the card; a chain's answers are none of its general model's, whose card it has."""
    card = {} if isinstance(model, Chain) else model.card
    inside = f"; {card['temperature_inside']:.2f} is in the answers" if card.get("temperature_inside") else ""
    return Temperature(card["temperature"], f"val, at the end of training{inside}") if card.get("temperature") else None


def _answer(
    model: Model | Chain, rows: Rows, temperature: Temperature | None, dataset: Dataset, split: str, folder: Path
) -> Answered:  # fmt: skip
    """Answer the rows that are evaluated; of a chain, the five ways are compared meanwhile and written."""
    value = temperature.value if temperature else 1.0
    if not isinstance(model, Chain):
        return Answered(rows, *predict_rows(model.predict, rows, model.how, BATCH_SIZE, value))
    by_image, by_listing, verticals = compare_chain(model, rows, dataset, split, value)
    write_json(folder / "verticals.json", verticals)
    return Answered(rows, by_image, by_listing)


def _batches(model: Model | Chain, rows: Rows, predict: Callable) -> Iterator[np.ndarray]:
    if not isinstance(model, Chain):
        return predict_batches(predict, rows, model.how, BATCH_SIZE)
    batches = read_sizes(rows, model.hows, BATCH_SIZE)
    return map(predict, progress(batches, "predicting", total=-(-len(rows) // BATCH_SIZE), unit="batches"))


def _say(args: argparse.Namespace, member: str, metrics: dict) -> None:
    print(_table(member, args.split, metrics))
    if is_chain(args.model):
        print(f"\n{to_table(read_json(args.out / 'verticals.json'))}\n")
    print((args.out / "report.html").absolute())
    print(_next(args))


def _next(args: argparse.Namespace) -> str:
    if is_chain(args.model):
        return next_command("predict", args.model, "IMAGE")
    if not read_card(args.model).get("schemes"):
        return next_command("export", args.model, "--out", f"{args.model}-bundle")
    return next_command("bench", args.model, "--out", "results.jsonl", "--data", args.dataset)


def done(args: argparse.Namespace) -> bool:
    """Say whether these rows were answered by this model already."""
    return is_done(args.out, _made_of(args, open_dataset(args.dataset)), defaults=DEFAULTS)


def _made_of(args: argparse.Namespace, dataset: Dataset) -> dict:
    # Not the threads: the answers don't depend on them. Those of another provider may, in int8 and on GPUs.
    member, sha256 = identify_any(args.model, args.scheme)
    return {"command": "evaluate", "member": member, "model_sha256": sha256, "split": args.split, "dataset": dataset.digest,
            "by": sorted(set(args.by)), "precision": args.precision, "against": _identify_other(args.against), "provider": args.provider,
            "figures": FIGURES}  # fmt: skip


def _identify_other(folder: Path | None) -> dict | None:
    """Return which member another evaluation is of."""
    if folder is None:
        return None
    told = read_json(folder / MADE_OF)
    if told.get("command") != "evaluate":
        raise UserError(f"--against {folder} was not made by `family evaluate`")
    return {key: told[key] for key in ("member", "model_sha256")}


def evaluate(model: Model | Chain, dataset: Dataset, split: str) -> dict:
    """Return the metrics of a model on a split's rows in its scope; without validation rows, so that nothing is told of filing.

    Raises:
        UserError: the model's classes are not those of the dataset's scope.
    """
    return metrics_of(model, dataset, split, answer_split(model, dataset, split))


def answer_split(model: Model | Chain, dataset: Dataset, split: str) -> Answered:
    """Let a model answer a split's rows in its scope.

    Raises:
        UserError: the model's classes are not those of the dataset's scope.
    """
    rows, temperature = dataset.rows(split, dataset.scope_of(model.card)), _temperature_of(model, split)
    return Answered(rows, *gather_answers(_batches(model, rows, model.predict), rows, temperature.value if temperature else 1.0))


def metrics_of(model: Model | Chain, dataset: Dataset, split: str, answered: Answered) -> dict:
    """Return the metrics of what `answer_split` returned."""
    about = {"member": model.member, "dataset": dataset.about["name"], "digest": dataset.digest, "split": split, "scope": model.card["scope"]}
    train_rows = dataset.count_rows("train", answered.rows.ontology)
    return assemble({**about, "notes": []}, answered, None, _temperature_of(model, split), train_rows, {}).findings.metrics


def _temperature_of(model: Model | Chain, split: str) -> Temperature | None:
    return _known_temperature(model) if split != "val" else None


def compare_chain(chain: Chain, rows: Rows, dataset: Dataset, split: str, temperature: float = 1.0) -> tuple:
    """Return a chain's answers by image and by listing, and the comparison of its ways to answer; each member answers each row once."""
    comparison = Comparison(rows, chain.parts, chain.limits)
    by_image, by_listing = gather_answers(_chained(chain, rows, comparison), rows, temperature)
    members = {name: {"member": model.member, **model.about} for name, model in {"general": chain.general, **chain.submodels}.items()}
    about = {"dataset": {"name": dataset.about["name"], "digest": dataset.digest, "split": split}, "members": members}
    return by_image, by_listing, {**about, "routing_of_chain": chain.routing, **comparison.finish()}


def _chained(chain: Chain, rows: Rows, comparison: Comparison) -> Iterator[np.ndarray]:
    """Yield the chain's probabilities batch by batch, and give those of its members to the comparison."""

    def answer(images: dict) -> np.ndarray:
        subs = {name: chain.predict_vertical(name, images) for name in chain.submodels}
        return comparison.add(chain.predict_general(images), subs)[chain.routing]

    return _batches(chain, rows, answer)


def _table(member: str, split: str, metrics: dict) -> str:
    lines = [f"{member} on {metrics['n']} {split} images", f"{'':12}{'micro':>8}{'':16}{'macro':>8}"]
    lines += [f"{name:12}{_shares(metrics[name])}" for name in ("top1", "top3", "top5")]
    for level, found in metrics["levels"].items():
        lines.append(f"{'level ' + level:12}{_shares(found)}  of {found['nodes']} categories")
    return "\n".join(lines)


def _shares(found: dict) -> str:
    """Return micro and macro with their intervals, which an evaluation by an earlier version does not have."""
    cells = []
    for kind in ("micro", "macro"):
        interval = found.get(f"{kind}_interval")
        cells.append(f"{found[kind]:8.1%}{'' if interval is None else f' ({interval[0]:.1%} to {interval[1]:.1%})':16}")
    return "".join(cells).rstrip()
