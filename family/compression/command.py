"""`family compress`: train a run once more, so that it gets smaller; what comes out is a run like any other."""

import argparse
from pathlib import Path

from family.card import read_card
from family.data.images import Preprocessing
from family.errors import UserError
from family.recipe import COMPRESSIONS, read_recipe
from family.training import command as training


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_folder", type=Path, metavar="RUN")
    parser.add_argument("dataset", type=Path, metavar="DATASET")
    parser.add_argument("--out", type=Path, required=True, metavar="RUN", help="the run folder to write")
    parser.add_argument("--method", required=True, choices=COMPRESSIONS, help="qat: rounded as int8 while it trains; prune: most weights become 0; "
                        "cluster: few values of weights")  # fmt: skip
    parser.add_argument("--recipe", help="a recipe's name or its TOML (default: that of the method's name)")
    parser.add_argument("--scope", help="a vertical's TOML, where the run was trained with one of your own (default: the run's scope)")
    parser.add_argument("--ranks", type=int, default=1, metavar="N", help="Horovod ranks on this machine (default 1)")
    parser.add_argument("--resume", action="store_true", help="go on from the newest checkpoint of --out")
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="key=value", help="change a field of the recipe")
    parser.add_argument("--fresh", action="store_true", help="move an --out that is there aside")


def run(args: argparse.Namespace) -> int:
    return training.run(as_training(args))


def done(args: argparse.Namespace) -> bool:
    """Say whether the compressed run is finished, and of the same inputs."""
    return training.done(as_training(args))


def as_training(args: argparse.Namespace) -> argparse.Namespace:
    """Return the arguments of `family train` that compress a run: its weights, head, resolution, scope and label, and where the recipe has one, the
    run itself as the teacher.

    Raises:
        UserError: no finished run, or a recipe without the method.
    """
    card = read_card(args.run_folder)
    if not (args.run_folder / "weights.h5").is_file():
        raise UserError(f"{args.run_folder} has a card and no weights.h5; is it a bundle? Give the run that it was exported from")
    recipe = args.recipe or args.method
    labels = [card["label"]] if card.get("label") else []
    how = Preprocessing.from_card(card["preprocessing"])
    activation = card.get("activation", "")
    if activation == "hard-swish" and args.method == "qat":
        raise UserError("quantization-aware training doesn't know the roundings inside of hard-swish yet; swish, relu6 and relu are known")
    settings = [f"resolution_px={how.resolution_px}", f"aspect={how.aspect}", f"compression={args.method}", f"activation={activation}", *args.settings]
    found = read_recipe(recipe, settings)
    if found.compression != args.method:
        raise UserError(f"--method {args.method} and compression = {found.compression!r} (by --set) differ; leave --set compression out")
    labels += [found.label] if found.label else []
    if card.get("label") and not any(setting.replace(" ", "").startswith("label=") for setting in args.settings):
        settings.append(f"label={'.'.join(labels)}")
    return argparse.Namespace(
        dataset=args.dataset, out=args.out, variant=card["variant"], scope=args.scope or card["scope"], recipe=recipe, ranks=args.ranks,
        weights=str(args.run_folder), teacher=[args.run_folder] if found.distill_weight > 0 else [], features=None, carry_head="",
        resume=args.resume, settings=settings, fresh=args.fresh,
    )  # fmt: skip
