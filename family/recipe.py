"""Recipes: how to train, as a TOML of differences from the defaults below."""

import math
import tomllib
from dataclasses import dataclass, fields, replace
from pathlib import Path

from family.data.augment import Augment
from family.errors import UserError, unknown_name
from family.models.variants import ACTIVATIONS

FOLDER = Path(__file__).parent / "recipes"
OPTIMIZERS = ("adamw", "sgd", "rmsprop", "lamb")
COMPRESSIONS = ("qat", "prune", "cluster")
SCHEDULES = ("cosine", "constant", "step", "plateau")


@dataclass(frozen=True)
class Recipe:
    """Every field of a recipe and its default. Rates are given per 256 rows of an update and scale with `batch_size`."""

    label: str = ""  # enters the member's name
    resolution_px: int = 0  # 0: the variant's published one
    batch_size: int = 32  # rows of one update, over all ranks
    head_epochs: int = 40  # at most; the head phase ends when training accuracy plateaus. 0: no head phase
    finetune_epochs: int = 4  # 0: stop after the head phase
    head_rate: float = 0.008
    finetune_rate: float = 0.0008
    schedule: str = "cosine"  # of the second phase
    warmup_epochs: float = 0.25
    step_epochs: float = 2.0  # after which `step` multiplies the rate by step_factor, again and again
    step_factor: float = 0.1
    plateau_rate_epochs: int = 2  # without a better validation accuracy, after which `plateau` multiplies the rate by step_factor
    layer_decay: float = 1.0  # the rate of a block is this times that of the block above it, from the head down
    unfreeze_epochs: float = 0.0  # of the second phase, that a block waits after the one above it, from the head down; 0: none waits
    optimizer: str = "adamw"
    weight_decay: float = 0.01
    label_smoothing: float = 0.1
    logit_adjustment: float = 0.0  # of training logits, times log(share of the class): 1 makes up for a long tail
    class_balance: float = 0.0  # beta of effective-number weights: 0 weighs rows alike, 0.999 nearly classes
    sampling_power: float = 1.0  # a class is drawn as often as (its rows)^power: 1 takes each row once an epoch, 0 all classes alike
    tree_weight: float = 0.0  # of the mean cross-entropy of the levels above the leaves
    distill_weight: float = 0.0  # of the teacher's answers (`--teacher`) against the labels, in the second phase
    distill_temperature: float = 2.0
    dropout: float = 0.2  # before the head
    drop_connect: float = 0.2  # stochastic depth of the trunk
    activation: str = ""  # hard-swish, relu6 or relu in the place of the trunk's swish; "": the variant's own
    residual_gamma: float = 1.0  # with random weights: the first scale of the last BatchNorm of each residual branch of an EfficientNet
    ema_decay: float = 0.0  # of the weights, in the second phase; 0: none
    plateau_patience: int = 3  # epochs without a better training accuracy that end the head phase
    plateau_min_gain: float = 0.001
    crop_min_area: float = 0.5  # of random training crops; 1: none
    flip: bool = True
    progressive_from_px: int = 0  # resolution and strength of the second phase's first stage grow from here; 0: the same in all epochs
    progressive_stages: int = 4
    augment: str = "none"  # trivial (one operation of any strength) or rand (augment_n of one strength)
    augment_n: int = 2
    augment_magnitude: float = 0.3  # 0..1, of `rand`
    erase: float = 0.0  # the share of images that lose a rectangle
    mixup: float = 0.0  # alpha of images that are mixed of two; 0: none
    cutmix: float = 0.0  # alpha of images that get a rectangle of another; 0: none
    mix_share: float = 1.0  # of images, where mixup or cutmix is on
    feature_views: int = 1  # of an image in the head phase: as it is evaluated, then augmented, not mixed; each costs a pass of the trunk
    batchnorm: str = "auto"  # train, inference, or auto: inference with a pretrained trunk
    batchnorm_momentum: float = 0.0  # 0: the library's own
    aspect: str = "stretch"
    accumulate: int = 1  # parts that a rank cuts its rows of an update into, one in memory at a time
    gradient_compression: str = "none"  # fp16: half the bytes between ranks
    precision: str = "float32"  # mixed_bfloat16, or mixed_float16 with a scaled loss: activations on GPUs
    compression: str = ""  # qat, prune or cluster: of a trained run, see `family compress`
    sparsity: float = 0.7  # of `prune`: the share of the convolutions' weights that are 0 in the end
    n_clusters: int = 16  # of `cluster`: values of a convolution's weights
    val_patience: int = 0  # epochs without a better validation accuracy that end the second phase; 0: never
    weights_kept: str = "last"  # best: those of the second phase's epoch with the best validation accuracy
    max_updates: int = 0  # of each phase; 0: no limit
    seed: int = 0
    deterministic: bool = False
    checkpoint_interval_s: float = 300.0
    checkpoints_kept: int = 2  # the newest, beside the best

    @property
    def augmentation(self) -> Augment:
        """How training photos are changed after crop and flip."""
        return Augment(self.augment, self.augment_n, self.augment_magnitude, self.erase, self.mixup, self.cutmix, self.mix_share)

    @property
    def features_seen(self) -> tuple:
        """What a frozen trunk's features depend on, beside the trunk and the images as they are evaluated."""
        drawn = (self.seed, self.crop_min_area, self.flip, replace(self.augmentation, mixup=0.0, cutmix=0.0))
        return self.precision, self.feature_views, drawn if self.feature_views > 1 else ()


def recipes() -> dict[str, Path]:
    """Return name -> TOML of the recipes that ship."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.toml"))}


def read_recipe(name: str, settings: list[str] = ()) -> Recipe:
    """Read a recipe by name or file, then apply `key=value` settings.

    Raises:
        UserError: an unknown recipe or field, or a value of the wrong kind or outside its range.
    """
    known = recipes()
    path = Path(name) if name.endswith(".toml") else known.get(name)
    if path is None:
        raise unknown_name("recipe", name, known)
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: {error}") from error
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals:
            raise UserError(f"--set takes key=value; got {setting!r}")
        values[key.strip()] = _parse(key.strip(), text.strip())
    return make_recipe(values)


def make_recipe(values: dict) -> Recipe:
    """Check values against the fields' kinds and ranges and return the recipe."""
    kinds = {field.name: type(field.default) for field in fields(Recipe)}
    checked = {}
    for key, value in values.items():
        if key not in kinds:
            raise unknown_name("recipe field", key, kinds)
        if kinds[key] is float and type(value) is int:
            value = float(value)
        if type(value) is not kinds[key]:
            raise UserError(f"recipe field {key} takes a {kinds[key].__name__}; got {value!r}")
        checked[key] = value
    recipe = replace(Recipe(), **checked)
    _check_ranges(recipe)
    return recipe


def _check_ranges(recipe: Recipe) -> None:
    choices = {
        "optimizer": OPTIMIZERS,
        "schedule": SCHEDULES,
        "batchnorm": ("auto", "train", "inference"),
        "aspect": ("stretch", "crop", "pad"),
        "gradient_compression": ("none", "fp16"),
        "precision": ("float32", "mixed_bfloat16", "mixed_float16"),
        "weights_kept": ("last", "best"),
        "compression": ("", *COMPRESSIONS),
        "activation": ("", *ACTIVATIONS),
    }
    for key, allowed in choices.items():
        if getattr(recipe, key) not in allowed:
            raise unknown_name(f"value of {key}", getattr(recipe, key), filter(None, allowed))
    shares = ("label_smoothing", "class_balance", "dropout", "drop_connect", "ema_decay", "batchnorm_momentum", "sparsity")
    wrong = [key for key, value in vars(recipe).items() if isinstance(value, float) and not math.isfinite(value)]
    wrong += [key for key in shares if not 0 <= getattr(recipe, key) < 1]
    not_below_1 = (
        "batch_size",
        "plateau_patience",
        "accumulate",
        "checkpoints_kept",
        "plateau_rate_epochs",
        "feature_views",
        "progressive_stages",
    )
    wrong += [key for key in not_below_1 if getattr(recipe, key) < 1]
    not_below_0 = ("head_epochs", "finetune_epochs", "max_updates", "seed", "warmup_epochs", "weight_decay", "val_patience")
    not_below_0 += ("plateau_min_gain", "checkpoint_interval_s", "logit_adjustment", "tree_weight", "unfreeze_epochs")
    wrong += [key for key in not_below_0 if getattr(recipe, key) < 0]
    wrong += ["seed"] if recipe.seed >= 2**31 else []
    wrong += [key for key in ("head_rate", "finetune_rate") if not 0 < getattr(recipe, key) < 100]
    wrong += [key for key in ("layer_decay", "step_factor") if not 0 < getattr(recipe, key) <= 1]
    wrong += ["n_clusters"] if not 2 <= recipe.n_clusters <= 256 else []
    wrong += ["step_epochs"] if recipe.step_epochs <= 0 else []
    wrong += [key for key in ("distill_weight", "sampling_power") if not 0 <= getattr(recipe, key) <= 1]
    wrong += ["residual_gamma"] if not 0 <= recipe.residual_gamma <= 1 else []
    wrong += ["distill_temperature"] if not 0.1 <= recipe.distill_temperature <= 100 else []
    wrong += ["crop_min_area"] if not 0 < recipe.crop_min_area <= 1 else []
    wrong += ["resolution_px"] if recipe.resolution_px and not 32 <= recipe.resolution_px <= 1024 else []
    if recipe.progressive_from_px and not 32 <= recipe.progressive_from_px <= (recipe.resolution_px or 1024):
        wrong.append("progressive_from_px")
    if wrong:
        raise UserError(f"recipe: {', '.join(f'{key} = {getattr(recipe, key)!r}' for key in dict.fromkeys(wrong))} is out of range")
    recipe.augmentation  # noqa: B018  it checks its own fields
    if recipe.weights_kept == "best" and recipe.ema_decay > 0:
        raise UserError(
            "recipe: weights_kept = best and ema_decay exclude each other: one keeps an epoch's weights, the other a mean of all"
        )
    if recipe.head_epochs == 0 and recipe.finetune_epochs == 0:
        raise UserError("recipe: head_epochs and finetune_epochs are both 0, so there is nothing to train")
    if recipe.compression and recipe.head_epochs:
        raise UserError("recipe: what is compressed is trained already; head_epochs has to be 0")
    if recipe.compression == "prune" and (recipe.weights_kept == "best" or recipe.val_patience):
        raise UserError("recipe: pruning reaches its sparsity late, so the last epoch's weights are the ones to keep: leave weights_kept at "
                        "last and val_patience at 0")  # fmt: skip
    if recipe.compression == "qat" and recipe.precision != "float32":
        raise UserError(f"recipe: quantization-aware training rounds in float32; got precision = {recipe.precision!r}")
    if not all(letter.isalnum() or letter in "_." for letter in recipe.label):
        raise UserError(f"recipe: the label {recipe.label!r} enters file names; letters, digits, '_' and '.' are allowed")


def check_taught(recipe: Recipe, has_teacher: bool) -> None:
    """Hold that a teacher and the recipe go together.

    Raises:
        UserError: one asks for the other, which is not there.
    """
    if has_teacher != (recipe.distill_weight > 0):
        raise UserError("a teacher and the recipe's distill_weight go together: give both (as with the recipe distill) or neither; got "
                        f"{'a' if has_teacher else 'no'} teacher and distill_weight = {recipe.distill_weight:g}")  # fmt: skip
    if has_teacher and recipe.finetune_epochs == 0:
        raise UserError("a teacher teaches in the second phase, and the recipe has none (finetune_epochs = 0)")


def _parse(key: str, text: str):
    """Parse a value as TOML would; anything that is no TOML value, or stands for a text, is text."""
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
    return text if isinstance(getattr(Recipe, key, None), str) and not isinstance(value, str) else value


def to_toml(recipe: Recipe) -> str:
    """Return the resolved recipe as TOML."""
    lines = []
    for field in fields(Recipe):
        value = getattr(recipe, field.name)
        shown = f'"{value}"' if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else repr(value)
        lines.append(f"{field.name} = {shown}")
    return "\n".join(lines) + "\n"
