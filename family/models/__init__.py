"""The models: one table of variants, their builders, pretrained weights, trunk and heads."""


def build_variant(name: str, n_classes: int = 1000, **options):
    """Return the Keras model of a variant; see `family.models.builders.build_variant` (which loads TensorFlow)."""
    from family.models.builders import build_variant as build

    return build(name, n_classes, **options)
