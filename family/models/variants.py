"""The table of variants: one row each. No TensorFlow here, so that listing them is instant.

The figures are those of the built graph (`family.models.counting`); `tests/golden/variants.json` holds them against the published ones.
"""

from dataclasses import dataclass, field

from family.errors import UserError, unknown_name


@dataclass(frozen=True)
class Variant:
    """One architecture at one size."""

    name: str
    builder: str  # `module:function` of a library's trunk, called with include_top=False, weights, input_shape
    resolution_px: int  # the published one; any other from `smallest_px` works
    n_parameters: int  # with a head of 1,000 classes, BatchNorm's statistics included, as Keras counts them
    n_features: int  # of the embedding
    multiply_adds: int  # of one image at the published resolution, with a head of 1,000 classes
    dropout: float  # before the head, as published
    scale: tuple[float, ...]  # the trunk wants pixel * scale + offset, pixel in 0..255
    offset: tuple[float, ...]
    source: str
    downloads: dict[str, str] = field(default_factory=dict)  # weights that the library fetches, and its file of them without a head
    keep_preprocessing_out: bool = False  # the library's trunk must be told not to rescale by itself
    smallest_px: int = 32
    activation: str = "swish"  # after its convolutions


_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_IMAGENET = {  # (x / 255 - mean) / std
    "scale": tuple(1 / (255 * std) for std in _STD),
    "offset": tuple(-mean / std for mean, std in zip(_MEAN, _STD, strict=True)),
}


def _around(middle: float, width: float) -> dict:
    # (x - middle) / width
    return {"scale": (1 / width,) * 3, "offset": (-middle / width,) * 3}


def _b(name: str, *figures) -> Variant:
    files = {"imagenet": f"efficientnet-{name}_weights_tf_dim_ordering_tf_kernels_autoaugment_notop.h5",
             "noisy-student": f"efficientnet-{name}_noisy-student_notop.h5"}  # fmt: skip
    return Variant(name, f"efficientnet.tfkeras:EfficientNet{name.upper()}", *figures, **_IMAGENET, downloads=files,
                   source="Tan and Le 2019 (1905.11946), table 2")  # fmt: skip


def _v2(name: str, *figures) -> Variant:
    size = name.removeprefix("v2-")
    pixels = _IMAGENET if size.startswith("b") else _around(128, 128)  # S, M and L were trained on other inputs than B0 to B3
    return Variant(name, f"tf_keras.applications:EfficientNetV2{size.upper()}", *figures, **pixels, keep_preprocessing_out=True,
                   downloads={"imagenet": f"efficientnetv2-{size}_notop.h5"}, source="Tan and Le 2021 (2104.00298); Keras applications")  # fmt: skip


def _lite(name: str, *figures) -> Variant:
    return Variant(name, f"family.models.lite:{name}_trunk", *figures, **_around(127, 128),
                   activation="relu6", source="EfficientNet-Lite, TensorFlow TPU models repository, 2020")  # fmt: skip


_ROWS = (
    # name, resolution, parameters, features, multiply-adds, dropout
    _b("b0", 224, 5_330_564, 1280, 385_814_752, 0.2),
    _b("b1", 240, 7_856_232, 1280, 686_802_832, 0.2),
    _b("b2", 260, 9_177_562, 1408, 993_561_872, 0.3),
    _b("b3", 300, 12_320_528, 1536, 1_827_141_392, 0.3),
    _b("b4", 380, 19_466_816, 1792, 4_393_771_024, 0.4),
    _b("b5", 456, 30_562_520, 2048, 10_266_384_752, 0.4),
    _b("b6", 528, 43_265_136, 2304, 19_067_593_536, 0.5),
    _b("b7", 600, 66_658_680, 2560, 37_745_884_192, 0.5),
    _v2("v2-b0", 224, 7_200_312, 1280, 718_086_176, 0.2),
    _v2("v2-b1", 240, 8_212_124, 1280, 1_196_819_360, 0.2),
    _v2("v2-b2", 260, 10_178_374, 1408, 1_697_542_832, 0.3),
    _v2("v2-b3", 300, 14_467_622, 1536, 3_011_458_816, 0.3),
    _v2("v2-s", 384, 21_612_360, 1280, 8_365_617_152, 0.2),
    _v2("v2-m", 480, 54_431_388, 1280, 24_582_460_384, 0.3),
    _v2("v2-l", 480, 119_027_848, 1280, 56_079_699_008, 0.4),
    _lite("lite0", 224, 4_694_024, 1280, 385_187_552, 0.2),
    _lite("lite1", 240, 5_470_344, 1280, 600_185_232, 0.2),
    _lite("lite2", 260, 6_150_168, 1280, 859_736_272, 0.3),
    _lite("lite3", 280, 8_273_768, 1280, 1_383_321_872, 0.3),
    _lite("lite4", 300, 13_118_936, 1280, 2_553_034_336, 0.3),
    Variant("inception-resnet-v2", "tf_keras.applications:InceptionResNetV2", 299, 55_873_736, 1536, 13_155_794_016, 0.2, **_around(127.5, 127.5),
            downloads={"imagenet": "inception_resnet_v2_weights_tf_dim_ordering_tf_kernels_notop.h5"}, smallest_px=75,
            activation="relu", source="Szegedy et al. 2016 (1602.07261); Keras applications"),
)  # fmt: skip
VARIANTS = {row.name: row for row in _ROWS}

ACTIVATIONS = ("hard-swish", "relu6", "relu")  # that can stand in the place of swish, from the nearest to it to the cheapest


def expected_step_ms(row: Variant, resolution_px: int, n_rows: int) -> float:
    """Return roughly what an update takes on one core: B0 took 3.4 s for 32 rows at 224 px."""
    return 3400 * n_rows / 32 * row.multiply_adds / VARIANTS["b0"].multiply_adds * (resolution_px / row.resolution_px) ** 2


def variant(name: str) -> Variant:
    """Return a variant's row.

    Raises:
        UserError: there is none of that name.
    """
    if name not in VARIANTS:
        raise unknown_name("variant", name, VARIANTS)
    return VARIANTS[name]


def resolution_of(row: Variant, wanted_px: int | None) -> int:
    """Return the side in pixels to build a variant for: the wanted one, or the published one for None and 0.

    Raises:
        UserError: the variant's convolutions leave nothing of so small an image.
    """
    if wanted_px and wanted_px < row.smallest_px:
        raise UserError(
            f"{row.name} takes images of at least {row.smallest_px} px; got {wanted_px}. Its published resolution is {row.resolution_px}"
        )
    return wanted_px or row.resolution_px


def check_activation(row: Variant, activation: str) -> None:
    """Hold that an activation means something for a variant: it has a swish, in whose place that is put.

    Raises:
        UserError: it has none, or there is no such activation.
    """
    if activation and activation not in ACTIVATIONS:
        raise unknown_name("activation", activation, ACTIVATIONS)
    if activation and row.activation != "swish":
        raise UserError(f"activation = {activation} stands in the place of swish, and {row.name} has none (it has {row.activation}); leave it out")
