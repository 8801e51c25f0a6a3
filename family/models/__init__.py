"""The models: one table of variants, their builders, pretrained weights, trunk and heads.

`family list variants` prints the table: EfficientNet b0 to b7, EfficientNetV2 b0 to b3, s, m and l, EfficientNet-Lite 0 to 4, and
Inception-ResNet-V2 as the baseline. Parameters and multiply-adds are read off the built graph (`counting`) and held against the papers'
figures in `tests/golden/variants.json`. Every variant takes any resolution from 32 px (Inception-ResNet-V2 from 75 px).
Pretrained trunks load by layer name, so a file of B0 also gives its convolutions to Lite0.
"""


def build_variant(name: str, n_classes: int = 1000, **options):
    """Return the Keras model of a variant; see `family.models.builders.build_variant` (which loads TensorFlow)."""
    from family.models.builders import build_variant as build

    return build(name, n_classes, **options)
