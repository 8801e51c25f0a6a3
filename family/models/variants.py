"""The table of variants: one row each. No TensorFlow here, so that listing them is instant."""

from dataclasses import dataclass

from family.errors import unknown_name

_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Variant:
    """One architecture at one size."""

    name: str
    builder: str  # `module:function` of a library's trunk, called with include_top=False, weights, input_shape
    resolution_px: int  # the published one; any other works
    n_parameters: int  # with a head of 1,000 classes, as Keras counts them
    n_features: int  # of the embedding
    multiply_adds: float  # of one image at the published resolution
    dropout: float  # before the head, as published
    scale: tuple[float, ...]  # the trunk wants pixel * scale + offset, pixel in 0..255
    offset: tuple[float, ...]
    source: str
    keep_preprocessing_out: bool = False  # the library's trunk must be told not to rescale by itself


def _standardize() -> dict:
    # (x / 255 - mean) / std
    return {
        "scale": tuple(1 / (255 * std) for std in _IMAGENET_STD),
        "offset": tuple(-mean / std for mean, std in zip(_IMAGENET_MEAN, _IMAGENET_STD, strict=True)),
    }


_PLUS_MINUS_ONE = {"scale": (1 / 127.5,) * 3, "offset": (-1.0,) * 3}

_ROWS = (
    Variant("b0", "efficientnet.tfkeras:EfficientNetB0", 224, 5_330_564, 1280, 0.39e9, 0.2, **_standardize(),
            source="Tan and Le 2019 (1905.11946), table 2"),
    Variant("v2-b0", "tf_keras.applications:EfficientNetV2B0", 224, 7_200_312, 1280, 0.72e9, 0.2, **_standardize(), keep_preprocessing_out=True,
            source="Tan and Le 2021 (2104.00298); Keras applications"),
    Variant("lite0", "family.models.lite:lite0_trunk", 224, 4_694_024, 1280, 0.407e9, 0.2, scale=(1 / 128,) * 3, offset=(-127 / 128,) * 3,
            source="EfficientNet-Lite, TensorFlow TPU models repository, 2020"),
    Variant("inception-resnet-v2", "tf_keras.applications:InceptionResNetV2", 299, 55_873_736, 1536, 13.2e9, 0.2, **_PLUS_MINUS_ONE,
            source="Szegedy et al. 2016 (1602.07261); Keras applications"),
)  # fmt: skip
VARIANTS = {row.name: row for row in _ROWS}


def expected_step_ms(row: Variant, resolution_px: int, n_rows: int) -> float:
    """Return roughly what an update takes on one core: B0 took 3.4 s for 32 rows at 224 px."""
    return 3400 * n_rows / 32 * row.multiply_adds / 0.39e9 * (resolution_px / row.resolution_px) ** 2


def variant(name: str) -> Variant:
    """Return a variant's row.

    Raises:
        UserError: there is none of that name.
    """
    if name not in VARIANTS:
        raise unknown_name("variant", name, VARIANTS)
    return VARIANTS[name]
