"""Progressive learning: the second phase begins with small pictures and weak regularization, and ends with those of the recipe."""

from dataclasses import replace

from family.recipe import Recipe

STEP_PX = 16  # resolutions between the first and the last are multiples of it
WEAKEST = 1 / 3  # of dropout and augmentation, in the first stage: EfficientNetV2-S goes from 0.1 to 0.3, and from 5 to 15


def in_epoch(recipe: Recipe, epoch: int) -> Recipe:
    """Return the recipe as it is in an epoch of the second phase: resolution, dropout and augmentation of its stage.

    Resolution and strength grow linearly over `progressive_stages` stages of equal length; mixing of pictures begins with none.
    *Source*: Tan and Le 2021 (2104.00298), section 4 and table 6.
    """
    n_stages = min(recipe.progressive_stages, recipe.finetune_epochs)
    if not recipe.progressive_from_px or n_stages <= 1:
        return recipe
    stage = min(n_stages - 1, epoch * n_stages // recipe.finetune_epochs)
    done = stage / (n_stages - 1)
    strength = WEAKEST + (1 - WEAKEST) * done
    px = recipe.progressive_from_px + (recipe.resolution_px - recipe.progressive_from_px) * done
    return replace(
        recipe,
        resolution_px=recipe.resolution_px if stage == n_stages - 1 else round(px / STEP_PX) * STEP_PX,
        dropout=recipe.dropout * strength,
        augment_magnitude=recipe.augment_magnitude * strength,
        erase=recipe.erase * strength,
        mixup=_alpha(recipe.mixup * done),
        cutmix=_alpha(recipe.cutmix * done),
    )


def _alpha(alpha: float) -> float:
    return alpha if alpha >= 0.01 else 0.0  # less is no mixing
