"""`family train`: one run, by one process or by the ranks of a world."""

import argparse
import importlib.metadata
import os
import sys
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from pathlib import Path

from distributed.joining import join, keep_log, started_by_launcher, world_size
from distributed.loading import load_tensorflow
from distributed.signals import AGREED_CODES, Wishes, listening
from distributed.world import World
from family.card import SCHEMA, member_name, read_card
from family.data.dataset import Dataset, open_dataset
from family.data.images import Preprocessing
from family.data.order import n_updates
from family.data.scopes import GENERAL, scope_name, scope_subtrees
from family.errors import ComeBack, Ended, Failure, UserError
from family.models.sources import NONE, check_activation_kept, check_source, check_teacher
from family.models.variants import check_activation, expected_step_ms, resolution_of, variant
from family.outputs import MADE_OF, is_done, locked, read_json, whole_file, write_json
from family.progress import next_command
from family.recipe import Recipe, check_taught, read_recipe, to_toml
from family.training.before import warn_of_precision, warn_of_seen
from family.training.inputs import DEFAULTS, inputs_of, plan_head


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dataset", type=Path, metavar="DATASET")
    parser.add_argument("--out", type=Path, required=True, metavar="RUN", help="the run folder to write")
    parser.add_argument("--variant", default="v2-b0", help="see `family list variants` (default v2-b0)")
    parser.add_argument("--scope", default=GENERAL, help="general (default), a vertical's name or its TOML")
    parser.add_argument("--recipe", default="transfer", help="a recipe's name or its TOML (default transfer)")
    parser.add_argument("--ranks", type=int, default=1, metavar="N", help="Horovod ranks on this machine (default 1)")
    parser.add_argument(
        "--weights", help="none, imagenet, noisy-student, an HDF5 file or a run (default: imagenet, or none for a recipe of one phase)"
    )
    parser.add_argument(
        "--teacher", type=Path, action="append", default=[], metavar="RUN", help="learn from its answers too; several: from their mean"
    )
    parser.add_argument(
        "--features",
        type=Path,
        metavar="DIR",
        help="keep the frozen trunk's features there, for other runs too (default: in RUN, until it ends)",
    )
    parser.add_argument("--carry-head", nargs="?", const="", type=_mapping, metavar="MAPPING.csv",
                        help="with --weights RUN: take the head's rows of the categories that are the same, and of those that MAPPING.csv "
                             "(old,new) tells of; without it, the trunk alone")  # fmt: skip
    parser.add_argument("--resume", action="store_true", help="go on from the newest checkpoint of RUN")
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="key=value", help="change a field of the recipe")
    parser.add_argument("--fresh", action="store_true", help="move a RUN that is there aside")


def _mapping(text: str) -> str:
    """Return the file of --carry-head, or "" where it stands alone; a DATASET behind it is taken for one."""
    if text and not Path(text).is_file():
        raise argparse.ArgumentTypeError(
            f"{text!r} is no file; the word behind --carry-head is taken for MAPPING.csv, so write DATASET before it"
        )
    return text


def run(args: argparse.Namespace) -> int:
    dataset, recipe = _open_inputs(args)
    _refuse(args, dataset, recipe)
    made_of = inputs_of(args, dataset, recipe)
    if started_by_launcher():  # which prepared the folder and holds it
        with listening() as wishes:
            return _train_as_rank(args, dataset, recipe, join(step_ms=_step_ms(args, recipe)), wishes)
    if world_size() > 1:
        with listening() as wishes:
            return _train_in_world(args, dataset, recipe, made_of, wishes)
    _make_way(args, made_of)
    if _is_finished(args.out, made_of, args):
        return _say_done(args)
    with locked(args.out):
        _prepare(args.out, made_of, recipe)
        if args.ranks > 1:
            return _launch(args)
        with listening() as wishes:
            return _train_as_rank(args, dataset, recipe, World(), wishes)


def done(args: argparse.Namespace) -> bool:
    """Say whether the run is finished, and of the same inputs."""
    dataset, recipe = _open_inputs(args)
    return is_done(args.out, inputs_of(args, dataset, recipe), defaults=DEFAULTS) and (args.out / "card.json").is_file()


def _open_inputs(args: argparse.Namespace) -> tuple[Dataset, Recipe]:
    dataset = open_dataset(args.dataset)
    recipe = _resolve(read_recipe(args.recipe, args.settings), args)
    args.weights = args.weights or ("imagenet" if recipe.head_epochs else NONE)
    return dataset, recipe


def _train_in_world(args: argparse.Namespace, dataset: Dataset, recipe: Recipe, made_of: dict, wishes: Wishes) -> int:
    """Train as one of the ranks that srun, horovodrun or mpirun started; the first prepares the folder for all."""
    world = join(args.out / "logs", _step_ms(args, recipe))
    from distributed.devices import use_devices

    use_devices(world)  # before the first message, which makes TensorFlow's threads
    with ExitStack() as stack:
        refusal, finished = None, False
        if world.is_first:
            try:
                _make_way(args, made_of)
                finished = _is_finished(args.out, made_of, args)
                if not finished:
                    stack.enter_context(locked(args.out))
                    _prepare(args.out, made_of, recipe)
            except UserError as error:
                refusal = str(error)
        refusal, finished = world.broadcast((refusal, finished))
        if refusal:
            raise UserError(refusal)
        if not finished:
            keep_log(args.out / "logs", world)
            return _train_as_rank(args, dataset, recipe, world, wishes)
        world.leave()
        return _say_done(args) if world.is_first else 0


def _make_way(args: argparse.Namespace, made_of: dict) -> None:
    """Move a run that is there aside, if that was asked for and nobody is at it."""
    if args.fresh and args.out.exists() and int(os.environ.get("SLURM_RESTART_COUNT") or 0) == 0:  # a requeued job goes on with its own
        with locked(args.out) if (args.out / MADE_OF).is_file() else nullcontext():
            is_done(args.out, made_of, fresh=True)


def _say_done(args: argparse.Namespace) -> int:
    print(f"{args.out}: already done\n{_next(args)}")
    return 0


def _next(args: argparse.Namespace) -> str:
    return next_command("evaluate", args.out, args.dataset, "--out", f"{args.out}-test")


def _prepare(out: Path, made_of: dict, recipe: Recipe) -> None:
    """Make a run's folder ready to be trained into; what an earlier start left is kept where it is of use."""
    requeued = int(os.environ.get("SLURM_RESTART_COUNT") or 0) > 0  # how often it came no further is told there
    if not requeued and not any((out / name).is_dir() for name in ("checkpoints", "features")):
        (out / "metrics.jsonl").unlink(missing_ok=True)  # it ended before anything was worth keeping
    write_json(out / MADE_OF, made_of)
    with whole_file(out / "recipe.toml") as partial:
        partial.write_text(to_toml(recipe), encoding="utf-8")


def _train_as_rank(args: argparse.Namespace, dataset: Dataset, recipe: Recipe, world: World, wishes: Wishes) -> int:
    """Train as one rank of a world that has met, and take leave of it."""
    if started_by_launcher() and world.size == 1:
        raise Failure("this rank was started as one of several and sees a world of one")
    try:
        _train(args, dataset, recipe, world, wishes)
    except (ComeBack, Ended):
        world.leave()
        if world.is_first:
            raise
        # The first rank alone tells, and it waited for this: srun sends SIGTERM to those that are still about to end, and takes
        # the highest exit code of all.
        sys.stdout.flush()
        os._exit(0)
    world.leave()
    return 0


def _step_ms(args: argparse.Namespace, recipe: Recipe) -> float:
    return expected_step_ms(variant(args.variant), recipe.resolution_px, -(-recipe.batch_size // world_size()))


def _resolve(recipe: Recipe, args: argparse.Namespace) -> Recipe:
    row = variant(args.variant)
    px, from_px = resolution_of(row, recipe.resolution_px), recipe.progressive_from_px
    if from_px and not row.smallest_px <= from_px <= px:
        raise UserError(
            f"recipe: progressive_from_px = {from_px} is out of range; {args.variant} allows {row.smallest_px} to {px}, its resolution here"
        )
    return replace(recipe, resolution_px=px)


def _refuse(args: argparse.Namespace, dataset: Dataset, recipe: Recipe) -> None:
    if recipe.head_epochs and args.weights == NONE:
        raise UserError(
            f"the recipe {args.recipe!r} trains a head on a frozen trunk, which has to be pretrained; got --weights none. "
            "Give weights, or a recipe of one phase: --recipe scratch"
        )
    dataset.scope(args.scope)
    row = variant(args.variant)
    check_source(row, args.weights)
    check_activation(row, recipe.activation)
    if args.weights != NONE and (recipe.head_epochs or recipe.batchnorm != "train"):
        check_activation_kept(row, recipe.activation, args.weights)
    check_taught(recipe, bool(args.teacher))
    if recipe.compression and not (Path(args.weights) / "card.json").is_file():
        raise UserError(f"the recipe's compression = {recipe.compression!r} wants a trained run; got --weights {args.weights}. "
                        f"`family compress RUN DATASET --out OUT --method {recipe.compression}` does it")  # fmt: skip
    for teacher in args.teacher:
        check_teacher(teacher, dataset.scope(args.scope).leaves)
    if args.ranks > 1 and world_size() > 1 and not started_by_launcher():
        raise UserError(
            f"--ranks {args.ranks} inside a world of {world_size()} ranks; leave it out: srun, horovodrun or mpirun started the ranks"
        )
    if recipe.deterministic and os.environ.get("HOROVOD_AUTOTUNE", "0") not in ("", "0"):
        raise UserError("deterministic = true and HOROVOD_AUTOTUNE exclude each other: tuning changes the order of sums while it trains")
    if args.ranks < 1 or recipe.batch_size < args.ranks:
        raise UserError(f"--ranks {args.ranks}: wanted 1 to {recipe.batch_size} (batch_size rows are shared by the ranks)")


def _is_finished(out: Path, made_of: dict, args: argparse.Namespace) -> bool:
    """Say whether the run is finished; refuse one that is neither new, nor finished, nor to be resumed."""
    if not is_done(out, made_of, defaults=DEFAULTS):
        return False
    if (out / "card.json").is_file():
        return True
    if not args.resume and any((out / name).is_dir() for name in ("checkpoints", "features")):
        raise UserError(f"{out} is an unfinished run of the same recipe: --resume goes on with it, --fresh moves it aside")
    return False


def _launch(args: argparse.Namespace) -> int:
    from distributed.launch import launch

    words = ["train", str(args.dataset), "--out", str(args.out), "--variant", args.variant, "--scope", args.scope,
             "--recipe", args.recipe, "--weights", args.weights, *(["--resume"] if args.resume else [])]  # fmt: skip
    words += ["--features", str(args.features)] if args.features else []
    words += [word for teacher in args.teacher for word in ("--teacher", str(teacher))]
    words += ["--carry-head", *filter(None, [args.carry_head])] if args.carry_head is not None else []
    words += [word for setting in args.settings for word in ("--set", setting)]
    code = launch([sys.executable, "-m", "family.cli", *words], args.ranks, args.out / "logs")
    if code == UserError.exit_code:
        raise UserError(f"training with {args.ranks} ranks was refused; see above")
    if code not in (0, *AGREED_CODES):
        hint = "; `--resume` goes on from the last checkpoint" if (args.out / "checkpoints").is_dir() else ""
        raise Failure(f"training with {args.ranks} ranks failed{hint}")
    return code


def _train(args: argparse.Namespace, dataset: Dataset, recipe: Recipe, world: World, wishes: Wishes) -> None:
    load_tensorflow()
    import tf_keras

    from distributed.devices import use_devices
    from family.compression.methods import begin
    from family.models.builders import build_variant, soften_residuals
    from family.models.weights import load_head, load_trunk, refuse_parts
    from family.training.runs import save_run
    from family.training.teaching import make_teacher
    from family.training.trainer import Job, fit_temperature, train_phases

    devices = use_devices(world)
    tf_keras.backend.clear_session()  # of an earlier run in this process
    if recipe.deterministic:
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
    tf_keras.utils.set_random_seed(recipe.seed)
    train = dataset.rows("train", args.scope)
    val = _rows_if_any(dataset, "val", args.scope)
    if val is None and (recipe.val_patience or recipe.weights_kept == "best" or recipe.schedule == "plateau"):
        raise UserError(
            "the recipe watches validation accuracy (val_patience, weights_kept, schedule = plateau) and the dataset has no split val"
        )
    tf_keras.mixed_precision.set_global_policy(recipe.precision)
    shape = (recipe.resolution_px, recipe.dropout, recipe.drop_connect, recipe.activation)
    model = build_variant(args.variant, len(train.ontology.leaves), *shape)
    loaded = load_trunk(model, args.weights) if args.weights != NONE else None
    if loaded is None and recipe.residual_gamma != 1:
        soften_residuals(model, recipe.residual_gamma)
    if loaded and (recipe.head_epochs or recipe.batchnorm != "train"):
        refuse_parts(loaded, args.variant)
    if plan := plan_head(args, dataset):
        load_head(model, args.weights, plan)
        loaded["head"] = plan.counts
    if world.is_first:
        _say_beginning(args, recipe, world, train, loaded)
        warnings = [warn_of_precision(recipe, devices["gpu"]), *(warn_of_seen(run, dataset) for run in dict.fromkeys([Path(args.weights), *args.teacher]))]
        print("".join(f"{warning}\n" for warning in warnings if warning), end="", file=sys.stderr, flush=True)
    how = Preprocessing(recipe.resolution_px, recipe.aspect)
    teachers = [read_card(teacher)["name"] for teacher in args.teacher]
    teacher = make_teacher(args.teacher, train.ontology, recipe.distill_temperature) if args.teacher else None
    compression = begin(recipe, model, train, how) if recipe.compression else None
    job = Job(args.out, compression.model if compression else model, train, val, how, recipe, world, wishes, teacher, args.features)
    try:
        phases = train_phases(job, has_trunk=loaded is not None, resume=args.resume)
        temperature = fit_temperature(job)
    finally:
        tf_keras.mixed_precision.set_global_policy("float32")
    compressed = {"compression": {"method": recipe.compression, **compression.finish()}} if compression else {}
    if world.is_first:
        card = _card(args, dataset, recipe, world, devices, train, how, loaded, phases, model, teachers, temperature)
        save_run(args.out, model, {**card, **compressed})
        print(f"{args.out}: trained {member_name(read_json(args.out / 'card.json'))}")
        print(_next(args))
    world.barrier()


def _rows_if_any(dataset: Dataset, split: str, scope: str):
    try:
        return dataset.rows(split, scope)
    except UserError:
        return None


def _say_beginning(args, recipe: Recipe, world: World, train, loaded: dict | None) -> None:
    print(f"training {args.variant} at {recipe.resolution_px} px on {len(train)} images of {len(train.ontology.leaves)} categories, "
          f"{world.size} rank{'s' * (world.size > 1)}", flush=True)  # fmt: skip
    if loaded:
        print(f"trunk: {loaded['loaded']} arrays loaded, {len(loaded['missing'])} layers missing, "
              f"{len(loaded['mismatched'])} of another shape, {len(loaded['skipped'])} of the file's not wanted", flush=True)  # fmt: skip
    if loaded and "head" in loaded:
        *there, dropped = (f"{n} {kind}" for kind, n in loaded["head"].items())
        print(f"head: of {len(train.ontology.leaves)} categories {', '.join(there)}; of the run's {dropped}", flush=True)


def _card(args, dataset, recipe, world, devices, train, how, loaded, phases, model, teachers, temperature) -> dict:
    packages = ("tensorflow", "tf-keras", "horovod", "efficientnet")
    card = {
        "schema": SCHEMA,
        "variant": args.variant,
        "resolution_px": recipe.resolution_px,
        "scope": scope_name(args.scope),
        "subtrees": scope_subtrees(args.scope),
        "label": recipe.label or None,
        **({"activation": recipe.activation} if recipe.activation else {}),  # an earlier version's cards have none
        "classes": list(train.ontology.leaves),
        "paths": [train.ontology.path_of[leaf] for leaf in train.ontology.leaves],
        "node_ids": dict(zip(train.ontology.paths, train.ontology.ids, strict=True)),
        "n_parameters": model.count_params(),
        "preprocessing": how.card(),
        "temperature": temperature,  # of the validation rows; the answers of the run are without it
        "dataset": {"name": dataset.about["name"], "folder": os.path.abspath(args.dataset), "digest": dataset.digest,
                    "ontology_digest": dataset.ontology.digest, "n_train": len(train)},
        "training": {"recipe": args.recipe, "weights": loaded, "ranks": world.size, "devices": devices,
                     "phases": phases, "teachers": teachers,
                     "trained": not 0 < recipe.max_updates < n_updates(len(train), recipe.batch_size)},
        "versions": {name: importlib.metadata.version(name) for name in packages},
    }  # fmt: skip
    card["name"] = member_name(card)
    return card
