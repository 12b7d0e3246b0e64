"""By which of two recipes something is made: that by which it was once begun, or the present one.

Where a way of computing becomes another (images that are resized by other code), what was computed
is still what it was. So a recipe can name an `earlier` one, of the same thing by the earlier way,
which stands wherever anything of it is left; all else is made the new way. Plans, runs and the
processes that they launch all ask here, so that they agree.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fomo_dagster.store.recipes import Recipe

if TYPE_CHECKING:
    from fomo_dagster.graph.core.context import NodeContext


def settled(recipe: Recipe, key: str, name: str, context: NodeContext) -> Recipe:
    """The recipe of the artifact `name` of the asset `key`: its earlier one if the asset was last
    made by it, if its artifact is in the store or was cleaned, or if a training by it was begun."""
    earlier = recipe.earlier
    if earlier is None:
        return recipe
    head = context.heads.read(key)
    was = head.recipes.get(name) if head is not None else None
    if was is not None:
        for one in (recipe, earlier):
            if one.as_data() == was:
                return one
    return earlier if is_begun(earlier, context) else recipe


def is_begun(recipe: Recipe, context: NodeContext) -> bool:
    """Whether anything of a recipe is left: its artifact, a note that this was cleaned, or the
    resume point of a training."""
    return (
        context.store.holds(recipe)
        or context.store.note(recipe).day is not None
        or context.resume_folder(recipe).is_dir()
    )
