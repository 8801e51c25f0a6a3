"""Members whose heads learn from the same features of a frozen trunk, which then runs over their rows once."""

from family.models.variants import variant
from family.plan.members import Member
from family.recipe import read_recipe

FOLDER = "features"  # of a family, while members that share are trained


def sharing(members: list[Member]) -> dict[str, str]:
    """Return member -> the first of those that share its features, by their folders. Members that share with none are not in it.

    It goes by the table; what is really shared is decided by a digest of the trunk's weights and the images (`family train --features`).

    Why not all members, always: features in a folder of many stay until the last of these is trained, those of a run's own folder end with its
    head phase. They take 4 bytes x features x images (5 million images, 1,280 features: 26 GB) for each trunk, resolution and scope, and in
    most tables no two members have these in common: a vertical has rows of its own, and the trunk that its general run has trained.
    """
    alike: dict[tuple, list[str]] = {}
    for member in members:
        recipe = read_recipe(member.recipe, member.settings)
        if recipe.head_epochs:
            px = recipe.resolution_px or variant(member.variant).resolution_px
            trunk = (member.variant, member.parent or member.weights, recipe.drop_connect, recipe.activation)
            alike.setdefault((trunk, member.scope, px, recipe.aspect, recipe.features_seen), []).append(member.folder)
    return {folder: folders[0] for folders in alike.values() if len(folders) > 1 for folder in folders}
